package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ptune/internal/files"
	"ptune/internal/tensorfile"
)

// A PEFT adapter is a directory with these two files. AdapterConfig is written last.
const (
	AdapterConfig  = "adapter_config.json"
	adapterWeights = "adapter_model.safetensors"
)

// peftVersion is the version of PEFT whose files are written.
const peftVersion = "0.21.2"

// peftMeta is the metadata of PEFT's safetensors files.
func peftMeta() map[string]string { return map[string]string{"format": "pt"} }

// readAdapterConfig reads an adapter's configuration into c.
func readAdapterConfig(dir string, c any) error {
	data, err := os.ReadFile(filepath.Join(dir, AdapterConfig))
	if err != nil {
		return err
	}
	if err := files.ParseJSON(data, c); err != nil {
		return fmt.Errorf("%s: %w", AdapterConfig, err)
	}
	return nil
}

// writeAdapter writes an adapter directory. The configuration is written last.
func writeAdapter(dir string, config any, tensors []tensorfile.Tensor) error {
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("write adapter %q: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write adapter: %w", err)
	}
	if err := tensorfile.Write(filepath.Join(dir, adapterWeights), tensors, peftMeta()); err != nil {
		return err
	}
	return files.WriteBytes(filepath.Join(dir, AdapterConfig), data)
}

// promptAdapter is adapter_config.json as PEFT writes it for prompt tuning: 17 keys, sorted.
type promptAdapter struct {
	AutoMapping   any     `json:"auto_mapping"`
	Base          *string `json:"base_model_name_or_path"`
	InferenceMode bool    `json:"inference_mode"`
	ModulesToSave any     `json:"modules_to_save"`
	Heads         *int    `json:"num_attention_heads"`
	Layers        *int    `json:"num_layers"`
	Modules       *int    `json:"num_transformer_submodules"`
	Tokens        int     `json:"num_virtual_tokens"`
	PEFTType      string  `json:"peft_type"`
	PEFTVersion   string  `json:"peft_version"`
	Init          any     `json:"prompt_tuning_init"`
	InitText      any     `json:"prompt_tuning_init_text"`
	Revision      any     `json:"revision"`
	TaskType      *string `json:"task_type"`
	TokenDim      *int    `json:"token_dim"`
	TokenizerArgs any     `json:"tokenizer_kwargs"`
	TokenizerName any     `json:"tokenizer_name_or_path"`
}

// loadPEFT reads a PEFT adapter directory with a soft prompt. The rows saved by P_TUNING mean the
// same as those of PROMPT_TUNING. Of the metadata only the base's name is known.
func loadPEFT(dir string) (*Prompt, error) {
	var c promptAdapter
	if err := readAdapterConfig(dir, &c); err != nil {
		return nil, err
	}
	switch {
	case c.PEFTType != "PROMPT_TUNING" && c.PEFTType != "P_TUNING":
		return nil, fmt.Errorf("the adapter is of type %q, want PROMPT_TUNING or P_TUNING", c.PEFTType)
	case c.Modules != nil && *c.Modules != 1:
		return nil, fmt.Errorf(
			"the adapter is for an encoder-decoder model (num_transformer_submodules is %d)",
			*c.Modules)
	case c.TaskType != nil && *c.TaskType != "CAUSAL_LM":
		return nil, fmt.Errorf("the adapter is for the task %s, want CAUSAL_LM", *c.TaskType)
	}
	p, err := loadFile(filepath.Join(dir, adapterWeights), false)
	if errors.Is(err, fs.ErrNotExist) {
		if _, bin := os.Stat(filepath.Join(dir, "adapter_model.bin")); bin == nil {
			return nil, errors.New(
				"its weights are a pickle (adapter_model.bin), which ptune does not read; " +
					"load it with PEFT and save it again as safetensors")
		}
	}
	if err != nil {
		return nil, err
	}
	if c.Tokens != 0 && c.Tokens != p.Rows {
		return nil, fmt.Errorf("%s has %d virtual tokens, the tensor has %d", AdapterConfig,
			c.Tokens, p.Rows)
	}
	if c.Base != nil {
		p.Meta.Base.Name = *c.Base
	}
	return p, nil
}

// SavePEFT writes the prompt as a PEFT adapter directory for a base that PEFT loads by this name or
// path, with its number of layers and of attention heads. The files are byte for byte those of PEFT.
// It fails if the directory holds anything but an adapter.
func (p *Prompt) SavePEFT(dir, base string, layers, heads int) error {
	if err := p.Check(); err != nil {
		return fmt.Errorf("write adapter %q: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write adapter: %w", err)
	}
	for _, e := range entries {
		if n := e.Name(); n != AdapterConfig && n != adapterWeights && n != "README.md" {
			return fmt.Errorf(
				"write adapter %q: the directory has %q, which is not part of an adapter", dir, n)
		}
	}
	modules, task := 1, "CAUSAL_LM"
	c := promptAdapter{
		Base: &base, InferenceMode: true, Heads: &heads, Layers: &layers, Modules: &modules,
		Tokens: p.Rows, PEFTType: "PROMPT_TUNING", PEFTVersion: peftVersion, Init: "RANDOM",
		TaskType: &task, TokenDim: &p.Dim,
	}
	t := tensorfile.Floats(tensorName, []int{p.Rows, p.Dim}, p.Values)
	return writeAdapter(dir, c, []tensorfile.Tensor{t})
}
