package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ptune/internal/files"
	"ptune/internal/tensorfile"
)

// LoRA is the choices of an adapter (Hu et al. 2021), as PEFT names them.
type LoRA struct {
	Rank    int
	Alpha   float64
	Targets []string // modules by the end of their names; empty: PEFT's choice for the model_type
}

// A LoRA's files are PEFT's.
const (
	loraConfig  = "adapter_config.json"
	loraWeights = "adapter_model.safetensors"
	loraPrefix  = "base_model.model."
	loraA       = ".lora_A.weight"
	loraB       = ".lora_B.weight"
	allLinear   = "all-linear"
)

// loraTargets are the modules that PEFT 0.21.2 takes for a model_type; those it does not know get the matrix of queries and that of
// values.
func loraTargets(modelType string) []string {
	switch modelType {
	case "gpt2":
		return []string{"c_attn"}
	case "bloom", "gpt_neox", "falcon":
		return []string{"query_key_value"}
	case "phi":
		return []string{"q_proj", "v_proj", "fc1", "fc2"}
	case "phi3":
		return []string{"qkv_proj"}
	}
	return []string{"q_proj", "v_proj"}
}

// SaveLoRA writes an adapter's directory as PEFT does, for a base that PEFT loads by that name or path.
func (m *Model) SaveLoRA(dir, base string, c LoRA, params []*Param) error {
	if len(c.Targets) == 0 {
		c.Targets = loraTargets(m.Type)
	}
	config := map[string]any{ // LoraConfig's 40 keys in PEFT 0.21.2, of which ptune has a say in six
		"alora_invocation_tokens": nil, "alpha_pattern": struct{}{}, "arrow_config": nil, "auto_mapping": nil, "base_model_name_or_path": base, "bias": "none",
		"corda_config": nil, "ensure_weight_tying": false, "eva_config": nil, "exclude_modules": nil, "fan_in_fan_out": m.Type == "gpt2", "inference_mode": true,
		"init_lora_weights": true, "kasa_config": nil, "layer_replication": nil, "layers_pattern": nil, "layers_to_transform": nil, "loftq_config": struct{}{},
		"lora_alpha": c.Alpha, "lora_bias": false, "lora_dropout": json.RawMessage("0.0"), "lora_ga_config": nil, "megatron_config": nil,
		"megatron_core": "megatron.core", "modules_to_save": nil, "monteclora_config": nil, "peft_type": "LORA", "peft_version": "0.21.2",
		"qalora_group_size": 16, "r": c.Rank, "rank_pattern": struct{}{}, "revision": nil, "target_modules": c.Targets, "target_parameters": nil,
		"task_type": "CAUSAL_LM", "trainable_token_indices": nil, "use_bdlora": nil, "use_dora": false, "use_qalora": false, "use_rslora": false, "velora_config": nil,
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("write adapter %q: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write adapter: %w", err)
	}
	var tensors []tensorfile.Tensor
	for _, p := range params {
		tensors = append(tensors, tensorfile.Floats(loraPrefix+p.Name, p.Shape, p.Values))
	}
	if err := tensorfile.Write(filepath.Join(dir, loraWeights), tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return files.WriteBytes(filepath.Join(dir, loraConfig), data)
}

// readLoRA is adapter_config.json as far as it matters; what else changes an adapter's arithmetic is refused.
type readLoRA struct {
	Type       string          `json:"peft_type"`
	Task       *string         `json:"task_type"`
	Rank       int             `json:"r"`
	Alpha      float64         `json:"lora_alpha"`
	Targets    json.RawMessage `json:"target_modules"`
	Bias       string          `json:"bias"`
	Dora       bool            `json:"use_dora"`
	RSLoRA     bool            `json:"use_rslora"`
	LoRABias   bool            `json:"lora_bias"`
	Ranks      map[string]any  `json:"rank_pattern"`
	Alphas     map[string]any  `json:"alpha_pattern"`
	Save       []string        `json:"modules_to_save"`
	Layers     any             `json:"layers_to_transform"`
	Exclude    any             `json:"exclude_modules"`
	Replicated any             `json:"layer_replication"`
}

// LoadLoRA puts the adapter of a PEFT directory beside the model's matrices.
func (m *Model) LoadLoRA(dir string) (LoRA, []*Param, error) {
	c, p, err := m.loadLoRA(dir)
	if err != nil {
		return c, nil, fmt.Errorf("read adapter %q: %w", dir, err)
	}
	return c, p, nil
}

func (m *Model) loadLoRA(dir string) (c LoRA, _ []*Param, _ error) {
	data, err := os.ReadFile(filepath.Join(dir, loraConfig))
	if err != nil {
		return c, nil, err
	}
	var r readLoRA
	if err := json.Unmarshal(data, &r); err != nil {
		return c, nil, fmt.Errorf("%s: %w", loraConfig, err)
	}
	switch {
	case r.Type != "LORA":
		return c, nil, fmt.Errorf("it is of type %q, want LORA", r.Type)
	case r.Task != nil && *r.Task != "CAUSAL_LM":
		return c, nil, fmt.Errorf("it is for the task %s, want CAUSAL_LM", *r.Task)
	case r.Rank < 1 || r.Rank > 1<<14 || !(r.Alpha > 0):
		return c, nil, fmt.Errorf("its rank is %d and its alpha %g", r.Rank, r.Alpha)
	case r.Bias != "" && r.Bias != "none" || r.Dora || r.RSLoRA || r.LoRABias || len(r.Ranks)+len(r.Alphas)+len(r.Save) > 0 || r.Layers != nil || r.Exclude != nil || r.Replicated != nil:
		return c, nil, errors.New("it has biases, DoRA, rsLoRA, patterns or modules of its own, which ptune does not have")
	}
	if err := json.Unmarshal(r.Targets, &c.Targets); err != nil {
		var one string
		if json.Unmarshal(r.Targets, &one) != nil || strings.ContainsAny(one, `*\([|^$`) {
			return c, nil, fmt.Errorf("its target_modules are %s, want a list of names", r.Targets)
		}
		c.Targets = []string{one}
	}
	c.Rank, c.Alpha = r.Rank, r.Alpha
	params, err := m.AddLoRA(c, 0)
	if err != nil {
		return c, nil, err
	}
	return c, params, m.FillLoRA(dir, params)
}

// FillLoRA reads the values of a LoRA from another directory of the same configuration: another task's.
func (m *Model) FillLoRA(dir string, params []*Param) error {
	return m.FillParams(filepath.Join(dir, loraWeights), loraPrefix, params)
}

// FillParams reads the parameters' values from a file in which their names begin with prefix; it has these tensors and no others.
func (m *Model) FillParams(path, prefix string, params []*Param) error {
	f, err := tensorfile.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n := len(f.Tensors()); n != len(params) {
		return fmt.Errorf("%q has %d tensors, want %d", path, n, len(params))
	}
	for _, p := range params {
		t, ok := f.Tensor(prefix + p.Name)
		if !ok {
			return fmt.Errorf("%q has no tensor %q", path, prefix+p.Name)
		}
		if fmt.Sprint(t.Shape) != fmt.Sprint(p.Shape) {
			return fmt.Errorf("%q: tensor %q has shape %v, want %v", path, t.Name, t.Shape, p.Shape)
		}
		v, err := t.Values()
		if err != nil {
			return err
		}
		copy(p.Values, v)
	}
	return nil
}

// SaveParams writes the parameters' values to a file.
func SaveParams(path string, params []*Param) error {
	var tensors []tensorfile.Tensor
	for _, p := range params {
		tensors = append(tensors, tensorfile.Floats(p.Name, p.Shape, p.Values))
	}
	return tensorfile.Write(path, tensors, map[string]string{"format": "pt"})
}
