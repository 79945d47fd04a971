package base

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// ImportAdapter returns the prompt of a PEFT adapter, with the metadata of a prompt's file. adapter is its
// directory, or its name in the Hugging Face cache. Its base has the name that the adapter gives and
// nothing else; NameIn adds the rest.
func ImportAdapter(adapter string) (Prompt, error) {
	dir, err := Dir(adapter)
	if err != nil {
		return Prompt{}, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return Prompt{}, failure.Usage(failure.Hint(fmt.Errorf("%s is not a directory", dir),
			"a PEFT adapter is a directory with adapter_config.json and adapter_model.safetensors"))
	}
	p, err := LoadPrompt(dir)
	if err != nil {
		return p, err
	}
	p.Meta.Input = "{text}"
	p.Meta.Init = prompt.Init{Kind: "file", File: filepath.Base(filepath.Clean(adapter))}
	return p, nil
}

// Base returns the base that the prompt names: a directory, or a model of the Hugging Face cache. found tells
// whether it is here. Without a name, model is empty.
func (p Prompt) Base() (model string, found bool) {
	model = cmp.Or(PathAt(p.Path, p.Meta.Base.Path), adapterBase(p))
	dir, err := Dir(model)
	return model, err == nil && (isDir(dir) || isGGUF(dir) || dir == demo.Name)
}

// HasTask reports whether the prompt's file says what its rows are. PEFT does not save that.
func (p Prompt) HasTask() bool { return p.Meta.Target != "" || p.Meta.Messages != "" }

// SetTask sets what the rows of a prompt are: the templates of input and target, and the labels if targets
// are classes. An empty input keeps the prompt's, or is the whole text.
func (b *Base) SetTask(p Prompt, input, target string, labels []prompt.Label) (err error) {
	m := &p.Meta
	if m.EOS, err = b.EndToken(); err != nil {
		return err
	}
	m.Input, m.Target, m.Labels = cmp.Or(input, m.Input, "{text}"), target, labels
	m.Continued = b.Tokenizer.Prepends
	return nil
}

// NameIn makes the base, opened as model, the one that the metadata of the prompt file names.
func (b *Base) NameIn(m *prompt.Meta, file, model string) {
	m.Base = prompt.Base{
		Name: b.Name, Path: ModelFrom(file, model), Fingerprint: b.Fingerprint, Type: b.Type,
	}
	m.Tokenizer = b.Tokenizer.Hash
	if len(b.EOS) > 0 {
		m.EOS = b.EOS[0]
	}
}
