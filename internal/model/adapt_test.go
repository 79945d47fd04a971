package model_test

import (
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
	"ptune/internal/param"
	adapters "ptune/internal/prompt" // prompt is a helper of these tests
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
				if g.tensors,
					err = tensorfile.Open(filepath.Join(dir, "golden.safetensors")); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { g.tensors.Close() })
				f(t, dir, load, g)
			})
		}
	}
}

// attachLoRA attaches the LoRA of a PEFT directory to m.
func attachLoRA(t *testing.T, m *model.Model, dir string) []*param.Tensor {
	t.Helper()
	lora, err := adapters.LoadLoRA(dir, m.Type, m.Modules())
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := m.NewLoRA(lora.Params, lora.Scale())
	if err != nil {
		t.Fatal(err)
	}
	m.Attach(adapter)
	return lora.Params
}

// attachWeights replaces the weights of m by copies.
func attachWeights(m *model.Model) []*param.Tensor {
	adapter, params := m.CopyWeights()
	m.Attach(adapter)
	return params
}

// paramStep returns the mean loss of batch b and computes the parameters' gradients.
func paramStep(t *testing.T, m *model.Model, g *golden, b int, params []*param.Tensor) float32 {
	t.Helper()
	f := g.forest(b, 0)
	for _, p := range params {
		clear(p.Grad)
	}
	nll, err := m.LossGrad(nil, f, nil)
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

// paramSteps returns the losses of ten AdamW steps.
func paramSteps(t *testing.T, m *model.Model, g *golden, params []*param.Tensor,
	rate float64) []float32 {
	t.Helper()
	var opts []train.Optimizer
	for _, p := range params {
		c := train.OptimizerConfig{Name: "adamw", Betas: [2]float64{0.9, 0.999}}
		o, err := train.NewOptimizer(c, 1, len(p.Values))
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
		params := attachLoRA(t, m, dir)
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
			want := g.values(t, "grad.base_model.model."+p.Name)
			within(t, "gradient of "+p.Name, p.Grad, want, gradientWithin*largestOf("grad"))
		}
		within(t, "losses", paramSteps(t, m, g, params, 0.01), g.values(t, "losses"), 1e-4)
		for _, p := range params {
			want := g.values(t, "last.base_model.model."+p.Name)
			within(t, "after ten steps "+p.Name, p.Values, want, stepsWithin*largestOf("last"))
		}
	})
}

func TestFullFineTuningEqualsTransformers(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		params := attachWeights(m)
		paramStep(t, m, g, 0, params)
		seen := 0
		for _, p := range params {
			// transformers 5 renames gpt_neox's
			name := strings.Replace(p.Name, "embed_out", "lm_head", 1)
			name, rows, _ := strings.Cut(name, "[")
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
			t.Errorf("compared %d gradients, want %d as in transformers", seen, wanted)
		}
		m = load()
		within(t, "losses", paramSteps(t, m, g, attachWeights(m), 0.001),
			g.values(t, "full_losses"), 1e-4)
	})
}

// results are the base's or adapter's logits, and the loss and gradient of a soft prompt.
func results(t *testing.T, m *model.Model, g *golden) []float32 {
	t.Helper()
	logits, err := m.Logits(nil, g.forest(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Clone(logits.Data)
	const rows = 2
	values, grad := make([]float32, rows*m.Hidden), make([]float32, rows*m.Hidden)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	nll, err := m.LossGrad(values, g.forest(0, rows), grad)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(all, nll, grad)
}

func TestARemovedAdapterLeavesTheBaseUnchanged(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		base := results(t, m, g)
		change := func(params []*param.Tensor) {
			for _, p := range params {
				for i := range p.Values {
					p.Values[i] += 0.1
				}
			}
		}

		params := attachLoRA(t, m, dir)
		adapted := results(t, m, g)
		paramStep(t, m, g, 0, params)
		change(params)
		if changed := results(t, m, g); slices.Equal(changed, adapted) || slices.Equal(adapted, base) {
			t.Error("a LoRA, or a change of it, has no effect")
		}
		m.Detach()
		if got := results(t, m, g); !slices.Equal(got, base) {
			t.Error("without its LoRA the base has other results than before")
		}

		adapter, params := m.CopyWeights()
		m.Attach(adapter)
		paramStep(t, m, g, 0, params)
		change(params)
		if changed := results(t, m, g); slices.Equal(changed, base) {
			t.Error("a change of all weights has no effect")
		}
		m.Detach()
		if got := results(t, m, g); !slices.Equal(got, base) {
			t.Error("without the changed weights the base has other results than before")
		}
	})
}

func TestLoRAsCanBeSwitchedOnOneBase(t *testing.T) {
	eachLoRA(t, func(t *testing.T, dir string, load func() *model.Model, g *golden) {
		m := load()
		first, err := adapters.LoadLoRA(dir, m.Type, m.Modules())
		if err != nil {
			t.Fatal(err)
		}
		c := adapters.LoRAConfig{Rank: 2, Alpha: 8, Targets: []string{"all-linear"}}
		second, err := adapters.NewLoRA(c, m.Type, m.Modules(), 7)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range second.Params {
			for k := range p.Values {
				p.Values[k] += float32(math.Cos(float64(i+k))) / 10
			}
		}
		var both []*model.Adapter
		var alone [][]float32
		for _, l := range []*adapters.LoRA{first, second} {
			a, err := m.NewLoRA(l.Params, l.Scale())
			if err != nil {
				t.Fatal(err)
			}
			fresh := load()
			onFresh, err := fresh.NewLoRA(l.Params, l.Scale())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Attach(onFresh)
			both, alone = append(both, a), append(alone, results(t, fresh, g))
		}
		if slices.Equal(alone[0], alone[1]) {
			t.Fatal("both LoRAs have the same results")
		}
		for _, i := range []int{0, 1, 0, 1} {
			m.Attach(both[i])
			if !slices.Equal(results(t, m, g), alone[i]) {
				t.Errorf("LoRA %d has other results after a switch than on a base of its own", i+1)
			}
		}
	})
}

func TestALoRAForAnotherBaseIsRefused(t *testing.T) {
	pool, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	m, err := model.Load(filepath.Join(goldenDir, "llama-gqa-tied-f32"), pool)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	module := m.Modules()[0]
	lora := func(name string, out, in int) []*param.Tensor {
		return []*param.Tensor{param.New(name+param.LoRAA, 3, in), param.New(name+param.LoRAB, out, 3)}
	}
	if _, err := m.NewLoRA(lora(module.Name, module.Out, module.In), 1); err != nil {
		t.Error(err)
	}
	for want, params := range map[string][]*param.Tensor{
		"has no module for the LoRA's magic":          lora("magic", module.Out, module.In),
		"has no module for the LoRA's " + module.Name: lora(module.Name, module.Out, module.In)[:1],
		"the LoRA of " + module.Name + " has factors": lora(module.Name, module.Out, module.In+1),
		" [4 3], the module is":                       lora(module.Name, 4, module.In),
	} {
		if _, err := m.NewLoRA(params, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one that contains %q", err, want)
		}
	}
}
