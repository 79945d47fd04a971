package run

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/model"
)

// openSized opens a run on the demo base with 40 training rows and that many validation rows of about 90
// tokens.
func openSized(t *testing.T, b *base.Base, valid int, settings ...string) *Run {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	row := `{"text": "` + strings.Repeat("It was worth every minute. ", 12) + `", "mood": "good"}` + "\n"
	task, err := config.Load(write("task.yaml", fmt.Sprintf(`model: ptune:demo
prompt: {tokens: 4, init: vocab}
data: {train: %s, valid: %s, input: "{text}", target: " {mood}"}
train: {steps: 12, batch_size: 4, eval_every: 5}
output: {prompt: p.st}
`, write("train.jsonl", strings.Repeat(row, 40)), write("valid.jsonl", strings.Repeat(row, valid)))), settings)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), task, b, "test")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openDemo(t *testing.T) *base.Base {
	t.Helper()
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestAnEstimateCountsStepsAndEvaluationsAndChangesNothing(t *testing.T) {
	b := openDemo(t)
	r := openSized(t, b, 30)
	values := slices.Clone(r.Prompt.Values)
	plan, err := r.Plan(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Estimate(context.Background(), &plan); err != nil {
		t.Fatal(err)
	}
	e := plan.Estimate
	// Evaluations at steps 0, 5, 10 and 12. Without labels, all of them cost the same.
	want := 12*e.StepSeconds + 4*30*e.RowSeconds
	if e.Evaluations != 4 || e.EvalRows != 30 || e.StepSeconds <= 0 || e.RowSeconds <= 0 ||
		math.Abs(e.Seconds-want) > 1e-9 {
		t.Errorf("estimate is %+v, want 4 evaluations of 30 rows and %g s", e, want)
	}
	if !slices.Equal(values, r.Prompt.Values) || len(r.Rows.Valid[0].Rows) != 30 ||
		b.PartRows != 0 || b.Recompute != (model.Recompute{}) || b.Stop != nil {
		t.Error("the estimate changed the run")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Estimate(ctx, &plan); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted estimate returns %v", err)
	}
}

func TestTheFirstEvaluationIsLeftOutIfItsCostIsALargeShareAndNotSmall(t *testing.T) {
	b := openDemo(t)
	for _, c := range []struct {
		what     string
		valid    int
		settings []string
		leftOut  bool
	}{
		{"a large share of a training, but small", 500, nil, false},
		{"a large share", 4000, nil, true},
		{"a small share of a long training", 4000, []string{"train.steps=40000"}, false},
		{"few rows of many", 4000, []string{"train.eval_rows=100"}, false},
	} {
		r := openSized(t, b, c.valid, c.settings...)
		said := false
		for _, note := range r.Notes() {
			said = said || strings.Contains(string(note), "the first evaluation is after step 5: ")
		}
		if r.Config.NoFirstEval != c.leftOut || said != c.leftOut {
			t.Errorf("%s: left out is %v, said is %v, want %v", c.what, r.Config.NoFirstEval, said, c.leftOut)
		}
	}
}

func TestEvaluatingManyLabelsCostsThePrefixesSearched(t *testing.T) {
	r := &Rows{Valid: []*data.Set{{Rows: []data.Row{{Input: make([]int32, 20), Target: make([]int32, 3)}}}}}
	for _, c := range []struct {
		labels, prefixes int
		want             float64
	}{
		{0, untrainedPrefixes, 23},
		{2, untrainedPrefixes, 23 + 4}, // a small tree is computed whole: two prefixes of each label
		{77, untrainedPrefixes, 23 + 50},
		{77, trainedPrefixes, 23 + 5},
		{20, untrainedPrefixes, 23 + 40},
	} {
		r.Choices = nil
		for i := range c.labels {
			r.Choices = append(r.Choices, data.Choice{IDs: []int32{int32(i), 1, 2}})
		}
		if got := r.evaluationCost(c.prefixes); got != c.want {
			t.Errorf("%d labels, up to %d prefixes: %g tokens, want %g", c.labels, c.prefixes, got, c.want)
		}
	}
}
