package arch_test

import (
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"ptune/internal/arch"
	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// changed returns the files of a tiny model with other texts in config.json.
func changed(t *testing.T, base string, pairs ...string) fstest.MapFS {
	t.Helper()
	dir := fstest.MapFS{}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(golden, base, name))
		if err != nil {
			t.Fatal(err)
		}
		dir[name] = &fstest.MapFile{Data: data}
	}
	text := string(dir["config.json"].Data)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("config.json has no %s", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	dir["config.json"].Data = []byte(text)
	return dir
}

func TestWhatPythonWritesIsRead(t *testing.T) {
	for name, pairs := range map[string][]string{
		"whole numbers with a point": {`"hidden_size": 48`, `"hidden_size": 48.0`, `"vocab_size": 99`, `"vocab_size": 9.9e1`},
		"numbers in quotes":          {`"rope_theta": 10000.0`, `"rope_theta": "10000"`, `"num_hidden_layers": 3`, `"num_hidden_layers": "3"`},
		"false for an object":        {`{`, `{"rope_scaling": false, "quantization_config": false, `},
		"null for an object":         {`{`, `{"rope_scaling": null, "quantization_config": null, `},
		"constants that are not used": {`{`, `{"x": Infinity, "y": [-Infinity, NaN], "a \"Infinity, NaN": ` +
			`"\\\"NaN", "z": {"b": "Infinity"}, `},
		"null for a number": {`"head_dim": 8`, `"head_dim": null`},
	} {
		m, err := arch.LoadFS("m", changed(t, llama, pairs...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Hidden != 48 || m.Vocab != 99 || m.Layers() != 3 || m.Heads.Dim != 8 {
			t.Errorf("%s: the model has sizes %d, %d, %d, %d; want 48, 99, 3, 8",
				name, m.Hidden, m.Vocab, m.Layers(), m.Heads.Dim)
		}
		m.Close()
	}
}

func TestValuesOfAnotherFormAreNamedTogether(t *testing.T) {
	for name, c := range map[string]struct{ pairs, want []string }{
		"many": {
			[]string{`"hidden_size": 48`, `"hidden_size": 48.5`, `"rms_norm_eps": 1e-06`, `"rms_norm_eps": "small"`,
				`"tie_word_embeddings": true`, `"tie_word_embeddings": "yes"`, `"hidden_act": "silu"`, `"hidden_act": 7`},
			[]string{`config.json: `, `hidden_size is 48.5, want a whole number below 2³¹`,
				`rms_norm_eps is "small", want a number`, `tie_word_embeddings is "yes", want true or false`,
				`hidden_act is 7, want a text`},
		},
		"a constant that is used": {
			[]string{`"rms_norm_eps": 1e-06`, `"rms_norm_eps": Infinity`},
			[]string{`rms_norm_eps is "Infinity", want a number`},
		},
		"in rope_parameters": {
			[]string{`"rope_theta": 10000.0`, `"rope_theta": [1]`},
			[]string{`config.json: rope_parameters: rope_theta is [1], want a number`},
		},
		"no object": {
			[]string{`{`, `{"rope_scaling": true, `},
			[]string{`config.json: rope_scaling is true, want an object`},
		},
		"an id in words": {
			[]string{`"eos_token_id": 2`, `"eos_token_id": ["two"]`},
			[]string{`eos_token_id is ["two"], want a whole number or a list of them`},
		},
		"a list": {
			[]string{`{`, `{"layer_types": "full_attention", `},
			[]string{`layer_types is "full_attention", want a list`},
		},
		"a size beyond all limits": {
			[]string{`"hidden_size": 48`, `"hidden_size": 1e30`},
			[]string{`hidden_size is 1e30, want a whole number below 2³¹`},
		},
	} {
		_, err := arch.LoadFS("m", changed(t, llama, c.pairs...))
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
				t.Errorf("%s: error is %v, want one with %q", name, err, want)
			}
		}
	}
}

func TestGenerationConfigAddsEndTokens(t *testing.T) {
	for name, c := range map[string]struct {
		config, generation string
		want               []int32
	}{
		"no file":                 {`2`, "", []int32{2}},
		"a number":                {`2`, `{"eos_token_id": 7}`, []int32{2, 7}},
		"a list with the same":    {`2`, `{"eos_token_id": [9, 2, 7]}`, []int32{2, 9, 7}},
		"null in config.json":     {`null`, `{"eos_token_id": [9, 7]}`, []int32{9, 7}},
		"lists in both":           {`[2, 3]`, `{"eos_token_id": [3, 4]}`, []int32{2, 3, 4}},
		"null in both":            {`null`, `{"eos_token_id": null}`, nil},
		"none of it":              {`2`, `{"temperature": Infinity}`, []int32{2}},
		"in quotes, with a point": {`"2"`, `{"eos_token_id": [7.0]}`, []int32{2, 7}},
	} {
		dir := changed(t, llama, `"eos_token_id": 2`, `"eos_token_id": `+c.config)
		if c.generation != "" {
			dir["generation_config.json"] = &fstest.MapFile{Data: []byte(c.generation)}
		}
		m, err := arch.LoadFS("m", dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(m.EOS, c.want) {
			t.Errorf("%s: end tokens are %v, want %v", name, m.EOS, c.want)
		}
		m.Close()
	}
	dir := changed(t, llama)
	dir["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id": "end"}`)}
	const want = `generation_config.json: eos_token_id is "end", want a whole number or a list of them`
	if _, err := arch.LoadFS("m", dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}

// rewritten writes a tiny model whose tensors change makes, and returns its directory.
func rewritten(t *testing.T, base string, change func(map[string]tensorfile.Tensor)) string {
	t.Helper()
	dir := t.TempDir()
	from, err := tensorfile.Open(filepath.Join(golden, base, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	tensors := maps.Clone(from.Tensors())
	change(tensors)
	var list []tensorfile.Tensor
	for name, tensor := range tensors {
		tensor.Name = name
		list = append(list, tensor)
	}
	config, err := os.ReadFile(filepath.Join(golden, base, "config.json"))
	err = errors.Join(err, tensorfile.Write(filepath.Join(dir, "model.safetensors"), list, nil),
		os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAllNamesMayBeginWithAnOuterModule(t *testing.T) {
	for base, prefixes := range map[string][]string{
		llama:                   {"module.", "_orig_mod.", "language_model.", "a.b."},
		gpt2:                    {"module."},
		"gpt_neox":              {"module."},
		"llama-mha-untied-bf16": {"language_model."},
	} {
		for _, prefix := range prefixes {
			dir := rewritten(t, base, func(tensors map[string]tensorfile.Tensor) {
				for _, name := range slices.Collect(maps.Keys(tensors)) {
					tensors[prefix+name] = tensors[name]
					delete(tensors, name)
				}
			})
			m, err := arch.Load(dir)
			if err != nil {
				t.Errorf("%s with %s: %v", base, prefix, err)
				continue
			}
			if !strings.HasPrefix(m.Embedding.Tokens.Name, prefix) || strings.HasPrefix(m.Prefix, prefix) {
				t.Errorf("%s with %s: the embedding is %q, the prefix %q", base, prefix, m.Embedding.Tokens.Name, m.Prefix)
			}
			m.Close()
		}
	}
	other := rewritten(t, llama, func(tensors map[string]tensorfile.Tensor) {
		for _, name := range slices.Collect(maps.Keys(tensors)) {
			if strings.Contains(name, "embed") {
				delete(tensors, name)
			}
		}
		for _, name := range []string{"vision.embed_tokens.weight", "text.embed_tokens.weight"} {
			tensors[name] = tensors["model.norm.weight"]
		}
	})
	_, err := arch.Load(other)
	const want = `no tensor "model.embed_tokens.weight": the weights are of another model, or all names were changed; ` +
		`they have ["model.layers.0.input_layernorm.weight" "model.layers.0.mlp.down_proj.weight" ` +
		`"model.layers.0.mlp.gate_proj.weight"] and `
	if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("error is %v, want one line with %q", err, want)
	}
}

func TestOnlyTensorsThatAreComputedWithMustBeFinite(t *testing.T) {
	inf := tensorfile.Floats("", []int{2}, []float32{1, float32(math.Inf(-1))})
	half := tensorfile.Tensor{DType: "F16", Shape: []int{1, 1}, Data: []byte{0, 0xfc}}
	for name, c := range map[string]struct {
		change func(map[string]tensorfile.Tensor)
		want   string
	}{
		"a mask in F16":  {func(x map[string]tensorfile.Tensor) { x["model.layers.0.attention.masked_bias"] = half }, ""},
		"another tensor": {func(x map[string]tensorfile.Tensor) { x["optimizer.state"] = inf }, ""},
		"a tied head":    {func(x map[string]tensorfile.Tensor) { x["lm_head.weight"] = inf }, ""},
		"a vector that is used": {func(x map[string]tensorfile.Tensor) {
			n := x["model.norm.weight"]
			n.Data = slices.Concat(n.Data[:4], inf.Data[4:8], n.Data[8:])
			x["model.norm.weight"] = n
		}, `value 2 of tensor "model.norm.weight" is NaN or infinite`},
	} {
		m, err := arch.Load(rewritten(t, llama, c.change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pool, err := kernels.New(kernels.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		err = m.CheckWeights(pool)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", name, err, c.want)
		}
		pool.Close()
		m.Close()
	}
}

func TestFilesInThePlaceOfConfigAreNamed(t *testing.T) {
	for want, text := range map[string]string{
		"config.json: it is a Git LFS pointer, not the file itself: run git lfs pull": "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
		"config.json: it is an HTML page":                                             "\n <!DOCTYPE html><html>",
		"config.json: it is a zip archive":                                            "PK\x03\x04...",
		"config.json: it is a list, want an object":                                   "[]",
		"config.json: it is compressed with gz":                                       "\x1f\x8b\x08",
	} {
		dir := changed(t, llama)
		dir["config.json"].Data = []byte(text)
		if _, err := arch.LoadFS("m", dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error is %v, want one with %q", text, err, want)
		}
	}
}
