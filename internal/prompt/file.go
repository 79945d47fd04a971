package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// A prompt file is a safetensors file with one F32 tensor [P, D], with PEFT's name for it, and metadata.
const (
	tensorName    = "prompt_embeddings"
	formatKey     = "ptune_format"
	formatVersion = "1"
	metaKey       = "ptune"
)

// maxRows bounds the virtual tokens in a file.
const maxRows = 1 << 16

// Save writes the prompt file, whole or not at all.
func (p *Prompt) Save(path string) error {
	if err := p.Check(); err != nil {
		return fmt.Errorf("write prompt %q: %w", path, err)
	}
	meta, err := json.Marshal(p.Meta)
	if err != nil {
		return fmt.Errorf("write prompt %q: %w", path, err)
	}
	t := tensorfile.Floats(tensorName, []int{p.Rows, p.Dim}, p.Values)
	keys := peftMeta()
	keys[formatKey], keys[metaKey] = formatVersion, string(meta)
	return tensorfile.Write(path, []tensorfile.Tensor{t}, keys)
}

// Load reads a prompt file, or a PEFT adapter directory with a prompt. An adapter has no metadata but
// the base's name.
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

// values returns the values of a tensor as f32. PEFT writes BF16 or F16 if the base was loaded as such.
func values(t tensorfile.Tensor) ([]float32, error) {
	d, err := kernels.ParseDType(t.DType)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	out := make([]float32, d.Values(len(t.Data)))
	kernels.ToFloats(out, t.Data, d)
	return out, nil
}

func loadFile(path string, ours bool) (*Prompt, error) {
	f, err := tensorfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, ok := f.Tensor(tensorName)
	if !ok {
		return nil, fmt.Errorf("no tensor %q: not a soft prompt", tensorName)
	}
	if len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[0] > maxRows || t.Shape[1] < 1 {
		return nil, fmt.Errorf("tensor %q has shape %v, want [virtual tokens, width]", tensorName,
			t.Shape)
	}
	p := &Prompt{Rows: t.Shape[0], Dim: t.Shape[1]}
	if p.Values, err = values(t); err != nil {
		return nil, err
	}
	if !ours {
		return p, nil
	}
	if v := f.Meta[formatKey]; v != formatVersion {
		if v == "" {
			return nil, errors.New("no metadata of ptune; give a PEFT adapter by its directory")
		}
		return nil, fmt.Errorf("the format is %q, this ptune reads %q", v, formatVersion)
	}
	if err := json.Unmarshal([]byte(f.Meta[metaKey]), &p.Meta); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return p, nil
}
