package model_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/tensorfile"
	"ptune/internal/train"
)

var update = flag.Bool("update", false, "write the table of docs/models.md")

const (
	page     = "../../docs/models.md"
	tableTop = "| checkpoint | model_type, weights | logits | gradient | " +
		"prompt after 10 steps | 40 greedy tokens |\n|---|---|---|---|---|---|\n"
)

// The page has a row for every golden with its distance from transformers and PEFT. The test compares
// the names in the rows. The numbers are from the machine that ran -update. Here they are measured
// again and must be within the tolerance.
func TestThePageOfModelsHasEveryGoldenWithinTolerance(t *testing.T) {
	table := tableTop
	for _, path := range goldenPaths(t) {
		table += row(t, filepath.Dir(path))
	}
	if *others != "" {
		t.Logf("\n%s", table)
		return
	}
	doc, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(doc, []byte("<!-- goldens -->\n"))
	_, after, ok2 := bytes.Cut(rest, []byte("<!-- end -->\n"))
	if !ok || !ok2 {
		t.Fatalf("%s has no markers for the table", page)
	}
	if *update {
		doc = slices.Concat(before, []byte("<!-- goldens -->\n"+table+"<!-- end -->\n"), after)
		if err := os.WriteFile(page, doc, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	had := string(rest[:len(rest)-len(after)-len("<!-- end -->\n")])
	if names(had) != names(table) {
		t.Errorf("%s does not list the goldens; go test ./internal/model -run Page -update writes it."+
			" It has:\n%s\nwant:\n%s", page, names(had), names(table))
	}
}

// names returns a table's first two columns.
func names(table string) string {
	var list []string
	for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			list = append(list, cells[1]+"|"+cells[2])
		}
	}
	return strings.Join(list, "\n")
}

// row returns the table's row of a golden, measured with the fastest kernel set.
func row(t *testing.T, dir string) string {
	t.Helper()
	pool, err := kernels.New(kernels.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	m, g := open(t, dir, pool)
	defer m.Close()
	defer g.tensors.Close()
	prompt := g.values(t, "prompt")
	p := len(prompt) / m.Hidden
	near := func(what string, got, want []float32) string {
		d := 0.0
		for i := range want {
			d = max(d, math.Abs(float64(got[i])-float64(want[i]))/largest(want))
		}
		if !(d <= relative) {
			t.Errorf("%s: %s differs by %.2g of the largest value, want at most %g",
				filepath.Base(dir), what, d, relative)
		}
		return fmt.Sprintf("%.1e", d)
	}
	logits, err := m.Logits(prompt, g.forest(0, p))
	if err != nil {
		t.Fatal(err)
	}
	cells := []string{near("logits", logits.Data, g.values(t, "logits"))}
	f := g.forest(0, p)
	_, grad := meanLossGrad(t, m, prompt, f)
	cells = append(cells, near("gradient", grad, g.values(t, "gradient")))
	trained := slices.Clone(prompt)
	tenSteps(t, m, g, trained)
	cells = append(cells, near("the prompt after ten steps", trained, g.values(t, "last_prompt")))

	same := "equal, with and without cache"
	texts := g.texts()
	cached := greedy(t, m, prompt, []int{p}, texts, len(g.Greedy[0]))
	for i, want := range g.Greedy {
		alone := greedyWithoutCache(t, m, prompt, texts[i].IDs, len(want))
		if !slices.Equal(cached[i], want) || !slices.Equal(alone, want) {
			t.Errorf("%s: text %d: %v, without cache %v, want %v", filepath.Base(dir), i, cached[i],
				alone, want)
		}
	}
	cells = append(cells, same)
	return fmt.Sprintf("| %s | %s | %s |\n", filepath.Base(dir), checkpoint(t, dir),
		strings.Join(cells, " | "))
}

// checkpoint returns a golden's model_type and the type of its weights.
func checkpoint(t *testing.T, dir string) string {
	t.Helper()
	var c struct {
		ModelType string `json:"model_type"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	weights, err := tensorfile.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer weights.Close()
	first, _ := weights.Tensor(weights.Names()[0])
	return fmt.Sprintf("`%s`, %s", c.ModelType, first.DType)
}

// tenSteps trains a prompt like the golden's and returns the losses.
func tenSteps(t *testing.T, m *model.Model, g *golden, prompt []float32) (losses []float32) {
	t.Helper()
	opt, err := train.NewOptimizer(train.OptimizerConfig{Name: "adamw", Betas: [2]float64{0.9, 0.999}},
		len(prompt)/m.Hidden, m.Hidden)
	if err != nil {
		t.Fatal(err)
	}
	for s := range g.values(t, "losses") {
		f := g.forest(s%len(g.Batches), len(prompt)/m.Hidden)
		loss, grad := meanLossGrad(t, m, prompt, f)
		losses = append(losses, float32(loss))
		opt.Step(prompt, grad, g.LearningRate)
	}
	return losses
}

// greedyWithoutCache takes the likeliest token n times, running the whole text anew for each.
func greedyWithoutCache(t *testing.T, m *model.Model, prompt []float32, ids []int32,
	n int) (out []int32) {
	t.Helper()
	for range n {
		_, _, logits := begin(t, m, prompt, []int{len(prompt) / m.Hidden},
			[]batch.Text{{IDs: slices.Concat(ids, out)}}, 1)
		out = append(out, likeliest(logits[0]))
	}
	return out
}
