package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// ErrNone is the error of Open for a model without a chat template.
var ErrNone = errors.New("no chat_template.jinja, and no chat_template in tokenizer_config.json")

const maxConfig = 16 << 20 // bytes of tokenizer_config.json or chat_template.jinja

// Open reads the chat template of a model directory, as transformers 5.23 finds it: chat_template.jinja
// and chat_templates/NAME.jinja, else chat_template in tokenizer_config.json. If the templates have
// names, it takes the one named default. name is for errors, tokens are the special tokens.
func Open(name string, dir fs.FS, tokens Tokens) (*Template, error) {
	templates, err := find(dir)
	if err == nil && len(templates) == 0 {
		err = ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read chat template of %q: %w", name, err)
	}
	source, ok := templates[defaultName]
	if !ok {
		return nil, fmt.Errorf("read chat template of %q: it has the templates %s, and none is named %s",
			name, strings.Join(slices.Sorted(maps.Keys(templates)), ", "), defaultName)
	}
	return Parse(name, source, tokens)
}

// defaultName is the name of the template for conversations without tools and documents.
const defaultName = "default"

// find returns the sources of the templates by name.
func find(dir fs.FS) (map[string]string, error) {
	templates := map[string]string{}
	files, err := fs.Glob(dir, "chat_templates/*.jinja")
	if err != nil {
		return nil, err
	}
	for _, file := range append([]string{"chat_template.jinja"}, files...) {
		source, err := read(dir, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		name := defaultName
		if strings.HasPrefix(file, "chat_templates/") {
			name = strings.TrimSuffix(path.Base(file), ".jinja")
		}
		templates[name] = string(source)
	}
	if len(templates) > 0 {
		return templates, nil
	}
	raw, err := read(dir, configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	return templates, configured(c.Template, templates)
}

// configFile is the file of a tokenizer's settings.
const configFile = "tokenizer_config.json"

// configured adds the templates of chat_template in tokenizer_config.json: a source, sources by name, or a
// list of {"name": …, "template": …}.
func configured(raw json.RawMessage, templates map[string]string) error {
	var source string
	var list []struct{ Name, Template string }
	var byName map[string]string
	switch {
	case len(raw) == 0:
	case json.Unmarshal(raw, &source) == nil:
		if source != "" { // it can be null
			templates[defaultName] = source
		}
	case json.Unmarshal(raw, &list) == nil:
		for _, t := range list {
			templates[t.Name] = t.Template
		}
	case json.Unmarshal(raw, &byName) == nil:
		maps.Copy(templates, byName)
	default:
		return fmt.Errorf("%s: chat_template is %.40s, want a template, an object of templates by name, or "+
			`a list of {"name": …, "template": …}`, configFile, raw)
	}
	return nil
}

func read(dir fs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(raw) > maxConfig {
		err = fmt.Errorf("%s is larger than %d MB", name, maxConfig>>20)
	}
	return raw, err
}
