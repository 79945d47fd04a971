package gguf_test

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/gguf"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/tensorfile"
)

const goldenDir = "../../testdata/golden"

// goldenFiles are the golden models that testdata/golden/to_gguf.py has converted: one of each
// architecture that is read, and the ways to scale rotary positions.
var goldenFiles = []string{"gemma", "gemma2", "gemma3", "granite", "llama-rope-llama3", "llama-rope-yarn",
	"olmo2", "phi3-longrope", "qwen2", "qwen3", "smollm3", "starcoder2"}

// notInFile are the settings of goldens that a GGUF file does not have, with the values that llama.cpp
// takes instead.
var notInFile = map[string]map[string]any{
	"gemma2":     {"query_pre_attn_scalar": 14},
	"gemma3":     {"query_pre_attn_scalar": 14, "sliding_window_pattern": 6},
	"starcoder2": {"sliding_window": nil},
}

// checkpoint returns the directory of a golden, or a copy with other settings.
func checkpoint(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(goldenDir, name)
	if notInFile[name] == nil {
		return dir
	}
	changed := t.TempDir()
	if err := os.CopyFS(changed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(changed, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	maps.Copy(config, notInFile[name])
	if data, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return changed
}

// A model that llama.cpp's converter has written computes what transformers computes with the checkpoint.
func TestAConvertedModelEqualsTransformersAndPEFT(t *testing.T) {
	pool, err := kernels.New(kernels.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, name := range goldenFiles {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(goldenDir, name)
			c, err := gguf.Open(filepath.Join(dir, "model.gguf"), name == "gemma")
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.LoadFrom(c.Name, c.Files, c.Weights, pool)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			of, err := model.Load(checkpoint(t, name), pool)
			if err != nil {
				t.Fatal(err)
			}
			defer of.Close()
			if m.Type != of.Type || m.MaxPositions != of.MaxPositions || m.Vocab != of.Vocab ||
				!slices.Equal(m.EOS, of.EOS) {
				t.Errorf("type, positions, vocabulary and end are %s, %d, %d and %v, want %s, %d, %d and %v", m.Type,
					m.MaxPositions, m.Vocab, m.EOS, of.Type, of.MaxPositions, of.Vocab, of.EOS)
			}
			var g struct {
				Batches [][]struct {
					IDs    []int32 `json:"ids"`
					Inputs int     `json:"inputs"`
				} `json:"batches"`
			}
			data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &g); err != nil {
				t.Fatal(err)
			}
			values, err := tensorfile.Open(filepath.Join(dir, "golden.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer values.Close()
			prompt := golden(t, values, "prompt")
			var rows []batch.Example
			for _, r := range g.Batches[0] {
				rows = append(rows, batch.Example{IDs: r.IDs, From: r.Inputs})
			}
			f := batch.Pack([]int{len(prompt) / m.Hidden}, rows)
			logits, err := m.Logits(prompt, f)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Clone(logits.Data)
			if logits, err = of.Logits(prompt, f); err != nil {
				t.Fatal(err)
			}
			within(t, "logits and those of the checkpoint", got, logits.Data, 1e-5)
			if notInFile[name] != nil {
				return
			}
			within(t, "logits", got, golden(t, values, "logits"), 1e-4)
			grad := make([]float32, len(prompt))
			nll, err := m.LossGrad(prompt, f, grad)
			if err != nil {
				t.Fatal(err)
			}
			loss := float32(0)
			for _, l := range nll {
				loss += l / float32(len(nll))
			}
			for i := range grad {
				grad[i] /= float32(len(nll))
			}
			within(t, "loss", []float32{loss}, golden(t, values, "losses")[:1], 1e-5)
			want := golden(t, values, "gradient")
			within(t, "gradient", grad, want, 1e-4*float64(largest(want)))
		})
	}
}

func golden(t *testing.T, f *tensorfile.File, name string) []float32 {
	t.Helper()
	x, _ := f.Tensor(name)
	v, err := x.Values()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func largest(x []float32) (top float32) {
	for _, v := range x {
		top = max(top, v, -v)
	}
	return top
}

// within fails unless every value of got is within tol of want.
func within(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= tol) {
			t.Fatalf("%s: value %d is %g, want %g (within %g)", what, i, got[i], want[i], tol)
		}
	}
}
