package eval_test

import (
	"context"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/eval"
)

// votersOfLabels is voters for three labels and no target.
type votersOfLabels voters

func (v votersOfLabels) NLL(_ []float32, f *batch.Forest) ([]float32, error) {
	var nll []float32
	for _, t := range f.Targets {
		nll = append(nll, v[t.Of/3%3][t.ID])
	}
	return nll, nil
}

// The labels and probabilities are those of Run, whose rows have targets. Of equally likely labels the
// first is meant.
func TestPredictionsAreThoseOfAnEvaluation(t *testing.T) {
	for _, v := range []voters{
		{{3, 1, 2}, {9, 1, 2}, {0, 9, 9}}, {{2, 1, 2}, {2, 1, 2}, {2, 1, 2}}, {{2, 2, 2}, {2, 2, 2}, {2, 2, 2}},
	} {
		testPredictions(t, v)
	}
}

func testPredictions(t *testing.T, v voters) {
	rows := []eval.Row{
		{Input: []int32{9}, Target: []int32{1}, Label: 1}, {Input: []int32{9, 9}, Target: []int32{2}, Label: 2},
	}
	o := eval.Options{Labels: [][]int32{{0}, {1}, {2}}, EOS: 8, MaxTokens: 1, PromptRows: []int{2, 1, 3}}
	want, err := eval.Run(context.Background(), v, make([]float32, 6), rows, o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := eval.Predict(context.Background(), votersOfLabels(v), make([]float32, 6),
		[][]int32{{9}, {9, 9}}, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got {
		all := want.Probabilities[i]
		others := slices.Clone(all)
		others[p.Label] = -1
		if p.Label != want.Predicted[i] || p.Probability != all[p.Label] ||
			p.RunnerUp != slices.Index(others, slices.Max(others)) || p.RunnerUpProbability != all[p.RunnerUp] {
			t.Errorf("prediction %+v, want label %d of %v", p, want.Predicted[i], all)
		}
	}
}
