package eval_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"ptune/internal/base"
	"ptune/internal/eval"
	"ptune/internal/infer"
	"ptune/internal/model"
)

// Twenty labels of two tokens are too many to score them all where the likeliest can be searched.
func TestSearchedLabelsAreThoseOfAllScores(t *testing.T) {
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	o := eval.Options{EOS: 1, MaxTokens: 50}
	for l := range int32(20) {
		o.Labels = append(o.Labels, []int32{2 + l, 30 - l})
	}
	var rows []eval.Row
	for i := range int32(4) {
		rows = append(rows, eval.Row{Input: []int32{3 + i, 9}, Target: append(o.Labels[i], o.EOS), Label: int(i)})
	}
	ctx := context.Background()
	want, err := eval.Run(ctx, b, nil, rows, o)
	if err != nil {
		t.Fatal(err)
	}
	searches := 0
	o.Trees = func() infer.Trees {
		searches++
		return b.NewDecoder(model.NoCacheLimit)
	}
	var told []int
	o.Tell = func(done, of int) { told = append(told, done) }
	got, err := eval.Run(ctx, b, nil, rows, o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Predicted, want.Predicted) || !(math.Abs(got.Loss-want.Loss) <= 1e-4) || searches != 1 {
		t.Errorf("searched %d times: labels %v, loss %g; of all scores %v, %g", searches,
			got.Predicted, got.Loss, want.Predicted, want.Loss)
	}
	if told[0] != 0 || told[len(told)-1] != len(rows) || !slices.IsSorted(told) || got.Probabilities != nil {
		t.Errorf("told %v of %d rows; probabilities %v, want none", told, len(rows), got.Probabilities)
	}
	// An input without a token has no tree to search.
	rows[0].Input = nil
	if _, err := eval.Run(ctx, b, nil, rows, o); err != nil || searches != 1 {
		t.Errorf("a row without input: searched %d times (%v), want no search more", searches, err)
	}
}
