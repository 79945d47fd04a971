package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"ptune/internal/tensorfile"
)

// A prompt's file is a safetensors file with one F32 tensor [P, D], under the name PEFT gives it, and metadata.
const (
	tensorName    = "prompt_embeddings"
	formatKey     = "ptune_format"
	formatVersion = "1"
	metaKey       = "ptune"
)

// maxRows bounds what a file may hold.
const maxRows = 1 << 16

// Save writes the prompt's file whole or not at all.
func (p *Prompt) Save(path string) error {
	if err := p.Check(); err != nil {
		return fmt.Errorf("write prompt %q: %w", path, err)
	}
	meta, err := json.Marshal(p.Meta)
	if err != nil {
		return fmt.Errorf("write prompt %q: %w", path, err)
	}
	t := tensorfile.Floats(tensorName, []int{p.Rows, p.Dim}, p.Values)
	return tensorfile.Write(path, []tensorfile.Tensor{t}, map[string]string{"format": "pt", formatKey: formatVersion, metaKey: string(meta)})
}

// Load reads a prompt's file, or a PEFT adapter directory with a prompt. Of the latter only the values are known.
func Load(path string) (*Prompt, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read prompt: %w", err)
	}
	var p *Prompt
	if info.IsDir() {
		p, err = loadPEFT(path)
	} else {
		p, err = loadFile(path, true)
	}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("read prompt %q: %w", path, err)
	}
	return p, nil
}

func loadFile(path string, ours bool) (*Prompt, error) {
	f, err := tensorfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, ok := f.Tensor(tensorName)
	if !ok {
		return nil, fmt.Errorf("it has no tensor %q; is it a soft prompt?", tensorName)
	}
	if len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[0] > maxRows || t.Shape[1] < 1 {
		return nil, fmt.Errorf("tensor %q has shape %v, want [virtual tokens, width]", tensorName, t.Shape)
	}
	p := &Prompt{Rows: t.Shape[0], Dim: t.Shape[1]}
	if p.Values, err = t.Values(); err != nil {
		return nil, err
	}
	if !ours {
		return p, nil
	}
	if v := f.Meta[formatKey]; v != formatVersion {
		if v == "" {
			return nil, errors.New("it has no metadata of ptune; a PEFT adapter is given by its directory")
		}
		return nil, fmt.Errorf("it is of format %q, this ptune reads %q", v, formatVersion)
	}
	if err := json.Unmarshal([]byte(f.Meta[metaKey]), &p.Meta); err != nil {
		return nil, fmt.Errorf("its metadata: %w", err)
	}
	return p, nil
}
