package prompt

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const adapters = "../../testdata/adapters"

func TestAPromptAdapterIsWrittenWithPEFTsBytes(t *testing.T) {
	p, err := Load(filepath.Join(adapters, "prompt"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != 3 || p.Dim != 48 || p.Meta.Base.Name != "testdata/golden/llama-gqa-tied-f32" {
		t.Errorf("%d rows of %d for %q", p.Rows, p.Dim, p.Meta.Base.Name)
	}
	dir := filepath.Join(t.TempDir(), "new", "adapter")
	for range 2 { // over itself too
		if err := p.SavePEFT(dir, p.Meta.Base.Name, 3, 6); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{AdapterConfig, adapterWeights} {
		want, err := os.ReadFile(filepath.Join(adapters, "prompt", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nPEFT wrote\n%s", name, got, want)
		}
	}
}

func TestOnlyPromptsAreReadFromAdapters(t *testing.T) {
	p, err := Load(filepath.Join(adapters, "p-tuning"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != 3 || p.Dim != 48 {
		t.Errorf("a P_TUNING adapter has %d rows of %d", p.Rows, p.Dim)
	}
	for name, want := range map[string]string{
		"multitask": `the adapter is of type "MULTITASK_PROMPT_TUNING", want PROMPT_TUNING or P_TUNING`,
		"prefix":    `of type "PREFIX_TUNING"`,
		"lora":      `of type "LORA"`,
	} {
		if _, err := Load(filepath.Join(adapters, name)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want one that contains %q", name, err, want)
		}
	}
	for name, c := range map[string]struct{ change, into, want string }{
		"an encoder and a decoder": {
			`"num_transformer_submodules": 1`, `"num_transformer_submodules": 2`,
			"for an encoder-decoder model",
		},
		"another task": {
			`"CAUSAL_LM"`, `"SEQ_CLS"`, "the adapter is for the task SEQ_CLS, want CAUSAL_LM",
		},
		"other sizes": {
			`"num_virtual_tokens": 3`, `"num_virtual_tokens": 4`,
			"has 4 virtual tokens, the tensor has 3",
		},
	} {
		dir := t.TempDir()
		for _, file := range []string{AdapterConfig, adapterWeights} {
			data, err := os.ReadFile(filepath.Join(adapters, "prompt", file))
			if err != nil {
				t.Fatal(err)
			}
			if file == AdapterConfig {
				changed := bytes.Replace(data, []byte(c.change), []byte(c.into), 1)
				if bytes.Equal(changed, data) {
					t.Fatalf("%s has no %s", file, c.change)
				}
				data = changed
			}
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one that contains %q", name, err, c.want)
		}
	}
}

func TestAPickleIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(adapters, "prompt", AdapterConfig))
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string][]byte{AdapterConfig: data, "adapter_model.bin": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), d, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); err == nil ||
		!strings.Contains(err.Error(), "a pickle (adapter_model.bin)") {
		t.Errorf("error is %v, want one that names the pickle", err)
	}
}

func TestADirectoryThatHoldsSomethingElseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := &Prompt{Rows: 1, Dim: 2, Values: []float32{1, 2}}
	err := p.SavePEFT(dir, "base", 1, 1)
	if err == nil || !strings.Contains(err.Error(), `"thesis.tex", which is not part of an adapter`) {
		t.Errorf("error is %v, want one that names the file", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v (%v)", entries, err)
	}
}
