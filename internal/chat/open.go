package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ErrNone is the error of Open for a model without a chat template.
var ErrNone = errors.New("no chat_template.jinja, and no chat_template in tokenizer_config.json")

const maxConfig = 16 << 20 // bytes of tokenizer_config.json or chat_template.jinja

// Open reads the chat template of a model directory: chat_template.jinja, else chat_template in
// tokenizer_config.json; if that is a list, the template named default. name is for errors.
func Open(name string, dir fs.FS) (*Template, error) {
	var c map[string]json.RawMessage
	raw, err := read(dir, "tokenizer_config.json")
	if err == nil {
		if err = json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("read chat template of %q: tokenizer_config.json: %w", name, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read chat template of %q: %w", name, err)
	}
	tokens := Tokens{}
	for _, key := range []string{
		"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token",
	} {
		var text string
		var added struct{ Content string }
		if json.Unmarshal(c[key], &text) == nil {
			tokens[key] = text
		} else if json.Unmarshal(c[key], &added) == nil && added.Content != "" {
			tokens[key] = added.Content
		}
	}
	source, err := read(dir, "chat_template.jinja")
	switch {
	case err == nil:
		return Parse(name, string(source), tokens)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read chat template of %q: %w", name, err)
	}
	var single string
	if json.Unmarshal(c["chat_template"], &single) == nil && single != "" {
		return Parse(name, single, tokens)
	}
	var named []struct{ Name, Template string }
	json.Unmarshal(c["chat_template"], &named)
	for _, t := range named {
		if t.Name == "default" {
			return Parse(name, t.Template, tokens)
		}
	}
	return nil, fmt.Errorf("read chat template of %q: %w", name, ErrNone)
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
