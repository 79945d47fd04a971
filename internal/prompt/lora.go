package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"ptune/internal/param"
)

// LoRAConfig is the choices of a LoRA (Hu et al. 2021), with PEFT's names.
type LoRAConfig struct {
	Rank    int
	Alpha   float64
	Targets []string // of modules (whole or ends), or all-linear; empty: PEFT's for the model_type
}

// LoRA is a low-rank adapter: Scale (x Aᵀ) Bᵀ is added to the result of each module it targets.
type LoRA struct {
	LoRAConfig
	Params []*param.Tensor // A [Rank, In] and B [Out, Rank] of each module in turn

	modelType string
}

// Scale returns alpha / rank.
func (l *LoRA) Scale() float32 { return float32(l.Alpha / float64(l.Rank)) }

// loraStream separates the draws of a LoRA from all others with the same seed.
const loraStream = 0x6c6f7261 // "lora"

const allLinear = "all-linear"

// loraTargets returns the modules that PEFT 0.21.2 targets for a model_type. Those PEFT does not know
// get the matrices of queries and values.
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

// NewLoRA returns a LoRA for a base with these modules, initialised as PEFT does: A is drawn uniformly
// from ±1/√In, B is zero. It fails if the base has no module that a target names.
func NewLoRA(c LoRAConfig, modelType string, modules []param.Module, seed uint64) (*LoRA, error) {
	if len(c.Targets) == 0 {
		c.Targets = loraTargets(modelType)
	}
	l := &LoRA{LoRAConfig: c, modelType: modelType}
	r := rand.New(rand.NewPCG(seed, loraStream))
	used := map[string]bool{}
	for _, m := range modules {
		at := slices.IndexFunc(c.Targets, func(t string) bool {
			return t == allLinear || m.Name == t || strings.HasSuffix(m.Name, "."+t)
		})
		if at < 0 {
			continue
		}
		used[c.Targets[at]] = true
		a, b := param.New(m.Name+param.LoRAA, c.Rank, m.In), param.New(m.Name+param.LoRAB, m.Out, c.Rank)
		for i := range a.Values {
			a.Values[i] = float32((2*r.Float64() - 1) / math.Sqrt(float64(m.In)))
		}
		l.Params = append(l.Params, a, b)
	}
	for _, t := range c.Targets {
		if !used[t] {
			return nil, fmt.Errorf("LoRA targets %q, but the base has no such module; it has %s",
				t, strings.Join(moduleNames(modules), ", "))
		}
	}
	return l, nil
}

// moduleNames returns the last parts of the modules' names, each once.
func moduleNames(modules []param.Module) []string {
	var names []string
	for _, m := range modules {
		if name := m.Name[strings.LastIndexByte(m.Name, '.')+1:]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// loraPrefix begins the names of a LoRA's tensors in PEFT's file.
const loraPrefix = "base_model.model."

// Save writes the LoRA as a PEFT adapter directory for a base that PEFT loads by this name or path.
func (l *LoRA) Save(dir, base string) error {
	config := map[string]any{ // the 40 keys of LoraConfig in PEFT 0.21.2; ptune chooses six of them
		"alora_invocation_tokens": nil, "alpha_pattern": struct{}{}, "arrow_config": nil,
		"auto_mapping": nil, "base_model_name_or_path": base, "bias": "none", "corda_config": nil,
		"ensure_weight_tying": false, "eva_config": nil, "exclude_modules": nil,
		"fan_in_fan_out": l.modelType == "gpt2", "inference_mode": true, "init_lora_weights": true,
		"kasa_config": nil, "layer_replication": nil, "layers_pattern": nil,
		"layers_to_transform": nil, "loftq_config": struct{}{}, "lora_alpha": l.Alpha,
		"lora_bias": false, "lora_dropout": json.RawMessage("0.0"), "lora_ga_config": nil,
		"megatron_config": nil, "megatron_core": "megatron.core", "modules_to_save": nil,
		"monteclora_config": nil, "peft_type": "LORA", "peft_version": peftVersion,
		"qalora_group_size": 16, "r": l.Rank, "rank_pattern": struct{}{}, "revision": nil,
		"target_modules": l.Targets, "target_parameters": nil, "task_type": "CAUSAL_LM",
		"trainable_token_indices": nil, "use_bdlora": nil, "use_dora": false, "use_qalora": false,
		"use_rslora": false, "velora_config": nil,
	}
	return writeAdapter(dir, config, tensors(loraPrefix, l.Params))
}

// loraAdapter is the part of adapter_config.json that decides what a LoRA computes.
type loraAdapter struct {
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

// maxRank bounds the rank in a file.
const maxRank = 1 << 14

// config returns the choices, or an error if they need what ptune does not have.
func (r *loraAdapter) config() (c LoRAConfig, err error) {
	switch {
	case r.Type != "LORA":
		return c, fmt.Errorf("the adapter is of type %q, want LORA", r.Type)
	case r.Task != nil && *r.Task != "CAUSAL_LM":
		return c, fmt.Errorf("the adapter is for the task %s, want CAUSAL_LM", *r.Task)
	case r.Rank < 1 || r.Rank > maxRank || !(r.Alpha > 0):
		return c, fmt.Errorf("r is %d and lora_alpha %g, want r from 1 to %d and lora_alpha above 0",
			r.Rank, r.Alpha, maxRank)
	case r.Bias != "" && r.Bias != "none" || r.Dora || r.RSLoRA || r.LoRABias,
		len(r.Ranks)+len(r.Alphas)+len(r.Save) > 0,
		r.Layers != nil || r.Exclude != nil || r.Replicated != nil:
		return c, errors.New("the adapter uses biases, DoRA, rsLoRA, patterns or its own modules, " +
			"which ptune does not support")
	}
	c.Rank, c.Alpha = r.Rank, r.Alpha
	if json.Unmarshal(r.Targets, &c.Targets) == nil {
		return c, nil
	}
	var one string
	if json.Unmarshal(r.Targets, &one) != nil || strings.ContainsAny(one, `*\([|^$`) {
		return c, fmt.Errorf("target_modules is %s, want a list of names", r.Targets)
	}
	c.Targets = []string{one}
	return c, nil
}

// LoadLoRA reads a PEFT adapter directory with a LoRA for a base with these modules.
func LoadLoRA(dir, modelType string, modules []param.Module) (*LoRA, error) {
	l, err := loadLoRA(dir, modelType, modules)
	if err != nil {
		return nil, fmt.Errorf("read adapter %q: %w", dir, err)
	}
	return l, nil
}

func loadLoRA(dir, modelType string, modules []param.Module) (*LoRA, error) {
	var r loraAdapter
	if err := readAdapterConfig(dir, &r); err != nil {
		return nil, err
	}
	c, err := r.config()
	if err != nil {
		return nil, err
	}
	l, err := NewLoRA(c, modelType, modules, 0)
	if err != nil {
		return nil, err
	}
	return l, l.Fill(dir)
}

// Fill reads the values from the directory of another LoRA with the same configuration and base.
func (l *LoRA) Fill(dir string) error {
	return fill(filepath.Join(dir, adapterWeights), loraPrefix, l.Params)
}
