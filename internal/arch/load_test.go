package arch_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/arch"
)

const (
	golden = "../../testdata/golden"
	llama  = "llama-gqa-tied-f32"
	gpt2   = "gpt2-f32"
)

func TestCheckpointsThatDoNotFitAreRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		base         string
		change, into string // in config.json
		want         string
	}{
		"another architecture": {
			llama, `"llama"`, `"mamba"`,
			`ptune cannot load model_type "mamba"`,
		},
		"another activation": {
			llama, `"silu"`, `"mish"`,
			`hidden_act: activation "mish" is not supported`,
		},
		"scaled positions": {
			llama, `"rope_type": "default"`, `"rope_type": "mrope"`,
			`rope_type is "mrope"`,
		},
		"a multimodal wrapper": {
			llama, `"model_type": "llama"`, `"text_config": {}, "model_type": "llava"`,
			"wraps a text model",
		},
		"nested positions": {
			llama, `"rope_type": "default"`, `"full_attention": {}, "rope_type": "default"`,
			"rope_parameters differs by kind of layer",
		},
		"a negative rotary base": {
			llama, `"rope_theta": 10000.0`, `"rope_theta": -1`,
			"with base -1",
		},
		"normed heads in phi": {
			"phi", `"qk_layernorm": false`, `"qk_layernorm": true`,
			"qk_layernorm is set, which ptune does not support for phi",
		},
		"opt-350m": {
			"opt", `"do_layer_norm_before": true`, `"do_layer_norm_before": false`,
			"do_layer_norm_before: false is set, which ptune does not support for opt",
		},
		"an unknown kind of layer": {
			"gemma3-new-config", `"full_attention",`, `"chunked_attention",`,
			`layer_types[0] is "chunked_attention", which ptune does not support`,
		},
		"a window of 0": {
			"mistral-window", `"sliding_window": 6`, `"sliding_window": 0`,
			"sliding_window is 0, want 1 or more",
		},
		"a cap of 0": {
			"gemma2", `"attn_logit_softcapping": 3.0`, `"attn_logit_softcapping": 0`,
			"attn_logit_softcapping is 0, want a number above zero",
		},
		"a multiplier of 0": {
			"granite", `"residual_multiplier": 0.4`, `"residual_multiplier": 0`,
			"residual_multiplier is 0, want a number above zero",
		},
		"too few layer_types": {
			"gemma3-new-config", `"full_attention",`, ``,
			"layer_types has 2 entries, there are more layers",
		},
		"frequencies in reverse order": {
			"llama-rope-llama3", `"high_freq_factor": 4.0`, `"high_freq_factor": 0.5`,
			"high_freq_factor 0.5, want 0 < low < high",
		},
		"a factor of 0": {
			"phi3-longrope", `1.1,`, `0,`,
			"want a finite number above zero",
		},
		"too few factors": {
			"phi3-longrope", `1.1,`, ``,
			"short_factor, want 3",
		},
		"too few attention_types": {
			"gpt_neo", `"num_layers": 3`, `"num_layers": 4`,
			"attention_types names 3 layers, num_layers is 4",
		},
		"another width": {
			llama, `"hidden_size": 48`, `"hidden_size": 60`,
			`tensor "model.embed_tokens.weight" has shape [99 48], want [99 60]`,
		},
		"more layers": {
			llama, `"num_hidden_layers": 3`, `"num_hidden_layers": 4`,
			`tensor "model.layers.3.input_layernorm.weight" is missing`,
		},
		"too many layers": {
			llama, `"num_hidden_layers": 3`, `"num_hidden_layers": 30000000`,
			"num_hidden_layers is 30000000, want 1 to 1024",
		},
		"heads that do not share": {
			llama, `"num_key_value_heads": 2`, `"num_key_value_heads": 4`,
			"num_attention_heads (6) must be divisible by num_key_value_heads (4)",
		},
		"quantised": {
			llama, `"model_type"`, `"quantization_config": {"bits": 4}, "model_type"`,
			"quantised",
		},
		"not JSON": {
			llama, `{`, ``,
			"config.json",
		},
		"another GPT-2 activation": {
			gpt2, `"gelu_new"`, `"mish"`,
			`activation_function: activation "mish" is not supported`,
		},
		"a GPT-2 of other heads": {
			gpt2, `"n_head": 5`, `"n_head": 7`,
			"n_embd (40) must be divisible by n_head (7)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config, err := os.ReadFile(filepath.Join(golden, c.base, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Replace(config, []byte(c.change), []byte(c.into), 1)
			if bytes.Equal(changed, config) {
				t.Fatalf("config.json has no %s", c.change)
			}
			weights, err := os.ReadFile(filepath.Join(golden, c.base, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			for file, data := range map[string][]byte{"config.json": changed,
				"model.safetensors": weights} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := arch.Load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
}
