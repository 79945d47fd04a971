package base

import (
	"fmt"
	"os"
	"path/filepath"

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
