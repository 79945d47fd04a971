package model_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/tensorfile"
	"ptune/internal/train"
)

const loraDir = "../../testdata/lora"

// eachLoRA runs f for every golden LoRA with every kernel set.
func eachLoRA(t *testing.T, f func(t *testing.T, dir string, load func() *model.Model, g *golden)) {
	dirs, err := filepath.Glob(loraDir + "/*/adapter_config.json")
	if err != nil || len(dirs) != 8 {
		t.Fatalf("found %d goldens (%v), want 8", len(dirs), err)
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		name := filepath.Base(dir)
		for _, k := range kernels.Names(kernels.F32) {
			t.Run(name+"/"+k, func(t *testing.T) {
				pool, err := kernels.New(kernels.Options{Threads: 2, Kernels: k})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				load := func() *model.Model {
					m, err := model.Load(filepath.Join(goldenDir, name), pool)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { m.Close() })
					return m
				}
				g := &golden{}
				data, err := os.ReadFile(filepath.Join(goldenDir, name, "golden.json"))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(data, g); err != nil {
					t.Fatal(err)
				}
				if g.tensors, err = tensorfile.Open(filepath.Join(dir, "golden.safetensors")); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { g.tensors.Close() })
				f(t, dir, load, g)
			})
		}
	}
}

// paramStep is the mean loss of batch b, with the parameters' gradients.
func paramStep(t *testing.T, m *model.Model, g *golden, b int, params []*model.Param) float32 {
	t.Helper()
	f := g.forest(b, 0)
	for _, p := range params {
		clear(p.Grad)
	}
	nll, err := m.ParamGrad(f)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, v := range nll {
		sum += float64(v)
	}
	for _, p := range params {
		for i := range p.Grad {
			p.Grad[i] /= float32(len(nll))
		}
	}
	return float32(sum / float64(len(nll)))
}

// paramSteps are the losses of ten AdamW steps.
func paramSteps(t *testing.T, m *model.Model, g *golden, params []*model.Param, rate float64) []float32 {
	t.Helper()
	var opts []train.Optimizer
	for _, p := range params {
		o, err := train.NewOptimizer(train.OptimizerConfig{Name: "adamw", Betas: [2]float64{0.9, 0.999}}, 1, len(p.Values))
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, o)
	}
	var losses []float32
	for s := range 10 {
		losses = append(losses, paramStep(t, m, g, s%len(g.Batches), params))
		for i, p := range params {
			opts[i].Step(p.Values, p.Grad, rate)
		}
	}
	return losses
}

func TestLoRAEqualsPEFT(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		_, params, err := m.LoadLoRA(dir)
		if err != nil {
			t.Fatal(err)
		}
		logits, err := m.Logits(nil, g.forest(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		within(t, "logits", logits.Data, g.values(t, "logits"), logitsWithin)
		paramStep(t, m, g, 0, params)
		largestOf := func(kind string) (most float64) {
			for _, p := range params {
				most = max(most, largest(g.values(t, kind+".base_model.model."+p.Name)))
			}
			return most
		}
		for _, p := range params {
			within(t, "gradient of "+p.Name, p.Grad, g.values(t, "grad.base_model.model."+p.Name), gradientWithin*largestOf("grad"))
		}
		within(t, "losses", paramSteps(t, m, g, params, 0.01), g.values(t, "losses"), 1e-4)
		for _, p := range params {
			within(t, "after ten steps "+p.Name, p.Values, g.values(t, "last.base_model.model."+p.Name), stepsWithin*largestOf("last"))
		}
	})
}

func TestFullFineTuningEqualsTransformers(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		params := m.TrainAll()
		paramStep(t, m, g, 0, params)
		seen := 0
		for _, p := range params {
			name, rows, _ := strings.Cut(strings.Replace(p.Name, "embed_out", "lm_head", 1), "[") // transformers 5 renames gpt_neox's
			var want []float32
			for n := range g.tensors.Tensors() {
				if n == "full."+name || strings.HasPrefix(n, "full.") && strings.HasSuffix(n, "."+name) {
					want = g.values(t, n)
				}
			}
			if want == nil {
				t.Errorf("transformers has no parameter %q", p.Name)
				continue
			}
			seen++
			got := p.Grad
			if len(p.Shape) == 2 {
				got = make([]float32, p.Shape[0])
				for i := range p.Grad {
					got[i/p.Shape[1]] += p.Grad[i] * float32(math.Sin(float64(i%p.Shape[1]+1)))
				}
			} else if rows != "" {
				var from, to int
				if _, err := fmt.Sscanf(rows, "%d:%d]", &from, &to); err != nil {
					t.Fatal(err)
				}
				want = want[from:to]
			}
			within(t, "gradient of "+p.Name, got, want, gradientWithin*max(1, largest(want)))
		}
		wanted := 0
		for n := range g.tensors.Tensors() {
			if strings.HasPrefix(n, "full.") {
				wanted++
			}
		}
		if seen < wanted {
			t.Errorf("%d gradients were compared, transformers has %d", seen, wanted)
		}
		m = load()
		within(t, "losses", paramSteps(t, m, g, m.TrainAll(), 0.001), g.values(t, "full_losses"), 1e-4)
	})
}

func TestAnAdapterIsWrittenAsPEFTDoes(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		c, params, err := m.LoadLoRA(dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.Targets)
		to := t.TempDir()
		if err := m.SaveLoRA(to, filepath.Base(dir), c, params); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
			got, err := os.ReadFile(filepath.Join(to, name))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is\n%.1500s\nwant\n%.1500s", name, got, want)
			}
		}
	})
}

func TestAnAdapterThatPtuneDoesNotHaveIsRefused(t *testing.T) {
	dir := filepath.Join(loraDir, "llama-gqa-tied-f32")
	config, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for change, want := range map[string]string{
		`"peft_type": "PREFIX_TUNING"`:   "of type \"PREFIX_TUNING\", want LORA",
		`"task_type": "SEQ_CLS"`:         "for the task SEQ_CLS",
		`"r": 0`:                         "its rank is 0",
		`"lora_alpha": -1`:               "its alpha -1",
		`"bias": "all"`:                  "ptune does not have",
		`"use_dora": true`:               "ptune does not have",
		`"use_rslora": true`:             "ptune does not have",
		`"rank_pattern": {"q_proj": 4}`:  "ptune does not have",
		`"modules_to_save": ["lm_head"]`: "ptune does not have",
		`"layers_to_transform": [0]`:     "ptune does not have",
		`"target_modules": ".*q_proj"`:   "want a list of names",
		`"target_modules": ["magic"]`:    "no such module; it has q_proj, k_proj",
		`"target_modules": ["q_proj"]`:   "has 42 tensors, want 6",
		`"r": 4`:                         "has shape [3 ",
	} {
		to := t.TempDir()
		var c map[string]any
		if err := json.Unmarshal(config, &c); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte("{"+change+"}"), &c); err != nil {
			t.Fatal(err)
		}
		changed, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(to, "adapter_config.json"), changed, 0o644)
		os.WriteFile(filepath.Join(to, "adapter_model.safetensors"), weights, 0o644)
		m, err := model.Load(filepath.Join(goldenDir, "llama-gqa-tied-f32"), pool)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.LoadLoRA(to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
		m.Close()
	}
}
