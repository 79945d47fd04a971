package model_test

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/tensorfile"
)

// The tolerances of the comparison with transformers and PEFT (testdata/golden/make.py). f32 sums in
// another order differ by about 1e-6 a layer.
const (
	logitsWithin   = 1e-4 // absolute
	lossWithin     = 1e-5 // absolute
	gradientWithin = 1e-4 // of the largest value
	stepsWithin    = 1e-4 // relative
	relative       = 1e-4 // of the largest value, for the table of docs/models.md
)

const goldens = 43

const goldenDir = "../../testdata/golden"

// others is a folder of goldens with new seeds, which make peer makes.
var others = flag.String("goldens", "",
	"compare with the goldens in this folder, not the committed ones")

type golden struct {
	LearningRate float64 `json:"learning_rate"`
	Batches      [][]struct {
		IDs    []int32 `json:"ids"`
		Inputs int     `json:"inputs"`
	} `json:"batches"`
	Greedy  [][]int32 `json:"greedy"`
	tensors *tensorfile.File
}

func (g *golden) values(t *testing.T, name string) []float32 {
	t.Helper()
	x, ok := g.tensors.Tensor(name)
	if !ok {
		t.Fatalf("golden has no tensor %q", name)
	}
	v, err := x.Values()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// forest packs batch b after the golden's prompt of p rows (0: none).
func (g *golden) forest(b, p int) *batch.Forest {
	var prompts []int
	if p > 0 {
		prompts = []int{p}
	}
	var examples []batch.Example
	for _, r := range g.Batches[b] {
		examples = append(examples, batch.Example{IDs: r.IDs, From: r.Inputs})
	}
	return batch.Pack(prompts, examples)
}

// texts returns the rows of the golden's first batch without the end token, as generation begins.
func (g *golden) texts() []batch.Text {
	var texts []batch.Text
	for _, r := range g.Batches[0] {
		texts = append(texts, batch.Text{IDs: r.IDs[:len(r.IDs)-1]})
	}
	return texts
}

// goldenPaths returns the golden.json of every golden.
func goldenPaths(t *testing.T) []string {
	t.Helper()
	if *others != "" {
		paths, err := filepath.Glob(filepath.Join(*others, "*/golden.json"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("found no goldens in %s (%v)", *others, err)
		}
		return paths
	}
	paths, err := filepath.Glob(goldenDir + "/*/golden.json")
	if err != nil || len(paths) != goldens {
		t.Fatalf("found %d goldens (%v), want %d", len(paths), err, goldens)
	}
	return paths
}

// open loads a golden model and its expected values.
func open(t *testing.T, dir string, pool *kernels.Pool) (*model.Model, *golden) {
	t.Helper()
	m, err := model.Load(dir, pool)
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{}
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, g); err != nil {
		t.Fatal(err)
	}
	if g.tensors, err = tensorfile.Open(filepath.Join(dir, "golden.safetensors")); err != nil {
		t.Fatal(err)
	}
	return m, g
}

// eachGolden runs f for every golden model with every kernel set, on two threads.
func eachGolden(t *testing.T, f func(t *testing.T, m *model.Model, g *golden)) {
	for _, path := range goldenPaths(t) {
		dir := filepath.Dir(path)
		for _, kernelSet := range kernels.Names(kernels.F32) {
			t.Run(filepath.Base(dir)+"/"+kernelSet, func(t *testing.T) {
				pool, err := kernels.New(kernels.Options{Threads: 2, Kernels: kernelSet})
				if err != nil {
					t.Fatal(err)
				}
				defer pool.Close()
				m, g := open(t, dir, pool)
				defer m.Close()
				defer g.tensors.Close()
				f(t, m, g)
			})
		}
	}
}

// within fails unless every value of got is within tol of want.
func within(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst := 0.0
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if !(d <= tol) {
			t.Fatalf("%s: value %d is %g, want %g (within %g)", what, i, got[i], want[i], tol)
		}
		worst = max(worst, d)
	}
	t.Logf("%s: largest difference %.2g", what, worst)
}

func largest(x []float32) float64 {
	top := 0.0
	for _, v := range x {
		top = max(top, math.Abs(float64(v)))
	}
	return top
}

func TestLogitsEqualTransformersAndPEFT(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, g *golden) {
		prompt := g.values(t, "prompt")
		logits, err := m.Logits(prompt, g.forest(0, len(prompt)/m.Hidden))
		if err != nil {
			t.Fatal(err)
		}
		within(t, "logits after the prompt", logits.Data, g.values(t, "logits"), logitsWithin)
		if logits, err = m.Logits(nil, g.forest(0, 0)); err != nil {
			t.Fatal(err)
		}
		within(t, "logits of the base alone", logits.Data, g.values(t, "logits_without_prompt"),
			logitsWithin)
	})
}

func TestLossAndGradientEqualPEFT(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, g *golden) {
		prompt := g.values(t, "prompt")
		f := g.forest(0, len(prompt)/m.Hidden)
		loss, grad := meanLossGrad(t, m, prompt, f)
		within(t, "loss", []float32{float32(loss)}, g.values(t, "losses")[:1], lossWithin)
		want := g.values(t, "gradient")
		within(t, "gradient", grad, want, gradientWithin*largest(want))
	})
}

func TestTenAdamWStepsEqualTorch(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, g *golden) {
		prompt := g.values(t, "prompt")
		want := g.values(t, "losses")
		losses := tenSteps(t, m, g, prompt)
		within(t, "losses", losses, want, stepsWithin*largest(want))
		last := g.values(t, "last_prompt")
		within(t, "the last prompt", prompt, last, 1e-3*largest(last))
	})
}

func TestGreedyTextEqualsPEFTsForAllRowsAtOnce(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, g *golden) {
		prompt := g.values(t, "prompt")
		texts := g.texts()
		got := greedy(t, m, prompt, []int{len(prompt) / m.Hidden}, texts, len(g.Greedy[0]))
		for i, want := range g.Greedy {
			if !slices.Equal(got[i], want) {
				t.Errorf("row %d: %v, want %v", i, got[i], want)
			}
		}
	})
}

// greedy takes the likeliest token n times for each text.
func greedy(t *testing.T, m *model.Model, prompts []float32, rows []int, texts []batch.Text,
	n int) [][]int32 {
	t.Helper()
	d, seqs, logits := begin(t, m, prompts, rows, texts, n)
	out := make([][]int32, len(texts))
	for k := range n {
		var ids [][]int32
		for i := range texts {
			id := likeliest(logits[i])
			out[i], ids = append(out[i], id), append(ids, []int32{id})
		}
		if k == n-1 {
			return out
		}
		var err error
		if logits, err = d.Next(seqs, ids); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func likeliest(logits []float32) int32 { return int32(slices.Index(logits, slices.Max(logits))) }

// begin adds texts after soft prompts of the given numbers of rows, or none, to a new decoder. Each
// can grow by n tokens; Prompt of a text is the number of its soft prompt.
func begin(t *testing.T, m *model.Model, prompts []float32, rows []int, texts []batch.Text,
	n int) (d *model.Decoder, seqs []int, logits [][]float32) {
	t.Helper()
	d = m.NewDecoder(1 << 30)
	var handles []int
	for _, r := range rows {
		h, err := d.AddPrompt(prompts[:r*m.Hidden])
		if err != nil {
			t.Fatal(err)
		}
		handles, prompts = append(handles, h), prompts[r*m.Hidden:]
	}
	texts = slices.Clone(texts)
	for i := range texts {
		if texts[i].Room = n; rows == nil {
			texts[i].Prompt = batch.NoPrompt
		} else {
			texts[i].Prompt = handles[texts[i].Prompt]
		}
	}
	seqs, logits, err := d.Add(texts)
	if err != nil {
		t.Fatal(err)
	}
	return d, seqs, logits
}
