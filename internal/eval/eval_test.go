package eval_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/eval"
)

// scorer gives token id k a −log p of k/10, and a prompt's first value on top; the end token, 9, is a sure thing behind token 7.
type scorer struct{ calls int }

func (s *scorer) NLL(prompts []float32, f *batch.Forest) ([]float32, error) {
	s.calls++
	var nll []float32
	for _, t := range f.Targets {
		v := float32(t.ID) / 10
		if t.ID == 9 && f.IDs[t.Row] == 7 {
			v = -50 // would make 7 the likeliest label if ends counted
		}
		if len(prompts) > 0 {
			v += prompts[0]
		}
		nll = append(nll, v)
	}
	return nll, nil
}

func TestLossIsTheMeanOverTargetTokensAndTheLikeliestLabelWins(t *testing.T) {
	rows := []eval.Row{{Input: []int32{1, 2}, Target: []int32{5, 9}, Label: 0}, {Input: []int32{3}, Target: []int32{7, 9}, Label: 1}, {Input: []int32{3}, Target: []int32{5, 9}, Label: 0}}
	for _, most := range []int{1, 15, 1000} {
		s := &scorer{}
		r, err := eval.Run(context.Background(), s, nil, rows, eval.Options{Labels: [][]int32{{5}, {7}}, EOS: 9, MaxTokens: most})
		if err != nil {
			t.Fatal(err)
		}
		want := (0.5 + 0.9 + 0.7 - 50 + 0.5 + 0.9) / 6
		if math.Abs(r.Loss-want) > 1e-6 || math.Abs(r.Perplexity-math.Exp(want)) > 1e-9 || r.Rows != 3 {
			t.Errorf("result is %+v, want a loss of %g", r, want)
		}
		if !slices.Equal(r.Predicted, []int{0, 0, 0}) || *r.Accuracy != 2.0/3 {
			t.Errorf("predicted %v, accuracy %g", r.Predicted, *r.Accuracy)
		}
	}
	r, err := eval.Run(context.Background(), &scorer{}, []float32{1}, rows[:1], eval.Options{MaxTokens: 9, PromptRows: 1})
	if err != nil || math.Abs(r.Loss-1.7) > 1e-6 || r.Accuracy != nil {
		t.Errorf("behind a prompt, without labels: %+v (%v)", r, err)
	}
}

func TestTheEndTokenCountsWhereALabelBeginsLikeAnother(t *testing.T) {
	// Without the end token {5} always beats {5, 7}: it is a part of it. With it, what ends surely wins.
	rows := []eval.Row{{Input: []int32{1}, Target: []int32{5, 7, 9}, Label: 1}}
	r, err := eval.Run(context.Background(), &scorer{}, nil, rows, eval.Options{Labels: [][]int32{{5}, {5, 7}}, EOS: 9, MaxTokens: 100})
	if err != nil || r.Predicted[0] != 1 {
		t.Errorf("predicted %+v (%v), want the longer label", r, err)
	}
}

func TestMacroF1IsTheMeanOverAllClasses(t *testing.T) {
	// As sklearn.metrics.f1_score(truth, predicted, average="macro", labels=[0, 1, 2, 3], zero_division=0) counts:
	truth, predicted := []int{0, 0, 0, 1, 1, 2, 2, 2, 2, 0}, []int{0, 1, 0, 1, 0, 2, 2, 0, 1, 0}
	want := (2*3.0/(4+5) + 2*1.0/(2+3) + 2*2.0/(4+2) + 0) / 4
	if got := eval.MacroF1(truth, predicted, 4); math.Abs(got-want) > 1e-12 {
		t.Errorf("macro-F1 is %g, want %g", got, want)
	}
	if got := eval.Accuracy(truth, predicted); got != 0.6 {
		t.Errorf("accuracy is %g, want 0.6", got)
	}
}

func TestAnEvaluationEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := eval.Run(ctx, &scorer{}, nil, []eval.Row{{Input: []int32{1}, Target: []int32{2}}}, eval.Options{MaxTokens: 9}); err != context.Canceled {
		t.Errorf("error is %v", err)
	}
	if _, err := eval.Run(context.Background(), &scorer{}, nil, nil, eval.Options{}); err == nil {
		t.Error("no rows were evaluated")
	}
}
