package eval_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/eval"
)

// scorer returns −log p = k/10 for token id k, plus the first value of the prompt. After token 7, the
// end token, 9, has −log p = −50.
type scorer struct{ calls int }

func (s *scorer) NLL(prompts []float32, f *batch.Forest) ([]float32, error) {
	s.calls++
	var nll []float32
	for _, t := range f.Targets {
		v := float32(t.ID) / 10
		if t.ID == 9 && f.IDs[t.Row] == 7 {
			v = -50 // if the end token counted, 7 would be the likeliest label
		}
		if len(prompts) > 0 {
			v += prompts[0]
		}
		nll = append(nll, v)
	}
	return nll, nil
}

func TestLossIsTheMeanOverTargetTokensAndTheLikeliestLabelWins(t *testing.T) {
	rows := []eval.Row{
		{Input: []int32{1, 2}, Target: []int32{5, 9}, Label: 0},
		{Input: []int32{3}, Target: []int32{7, 9}, Label: 1},
		{Input: []int32{3}, Target: []int32{5, 9}, Label: 0},
	}
	for _, most := range []int{1, 15, 1000} {
		s := &scorer{}
		r, err := eval.Run(context.Background(), s, nil, rows,
			eval.Options{Labels: [][]int32{{5}, {7}}, EOS: 9, MaxTokens: most})
		if err != nil {
			t.Fatal(err)
		}
		want := (0.5 + 0.9 + 0.7 - 50 + 0.5 + 0.9) / 6
		if !(math.Abs(r.Loss-want) <= 1e-6) || !(math.Abs(r.Perplexity-math.Exp(want)) <= 1e-9) || r.Rows != 3 {
			t.Errorf("result is %+v, want a loss of %g", r, want)
		}
		if !slices.Equal(r.Predicted, []int{0, 0, 0}) || *r.Accuracy != 2.0/3 || r.Members != nil {
			t.Errorf("predicted %v, accuracy %g, members %v; want none of a single prompt",
				r.Predicted, *r.Accuracy, r.Members)
		}
	}
	r, err := eval.Run(context.Background(), &scorer{}, []float32{1}, rows[:1],
		eval.Options{MaxTokens: 9, PromptRows: []int{1}})
	if err != nil || !(math.Abs(r.Loss-1.7) <= 1e-6) || r.Accuracy != nil {
		t.Errorf("with a prompt, without labels: %+v (%v), want a loss of 1.7", r, err)
	}
}

func TestTheEndTokenCountsIfOneLabelIsAPrefixOfAnother(t *testing.T) {
	// Without the end token {5} always has a higher score than {5, 7}, because it is its prefix. With
	// the end token {5, 7} wins, because the end is almost certain after 7.
	rows := []eval.Row{{Input: []int32{1}, Target: []int32{5, 7, 9}, Label: 1}}
	r, err := eval.Run(context.Background(), &scorer{}, nil, rows,
		eval.Options{Labels: [][]int32{{5}, {5, 7}}, EOS: 9, MaxTokens: 100})
	if err != nil || r.Predicted[0] != 1 {
		t.Errorf("result is %+v (%v), want the longer label", r, err)
	}
}

func TestMacroF1IsTheMeanOverAllClasses(t *testing.T) {
	// sklearn.metrics.f1_score(truth, predicted, average="macro", labels=[0, 1, 2, 3], zero_division=0)
	truth := []int{0, 0, 0, 1, 1, 2, 2, 2, 2, 0}
	predicted := []int{0, 1, 0, 1, 0, 2, 2, 0, 1, 0}
	want := (2*3.0/(4+5) + 2*1.0/(2+3) + 2*2.0/(4+2) + 0) / 4
	if got := eval.MacroF1(truth, predicted, 4); !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("macro-F1 is %g, want %g", got, want)
	}
	if got := eval.Accuracy(truth, predicted); got != 0.6 {
		t.Errorf("accuracy is %g, want 0.6", got)
	}
}

func TestACancelledContextEndsAnEvaluation(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rows := []eval.Row{{Input: []int32{1}, Target: []int32{2}}}
	_, err := eval.Run(ctx, &scorer{}, nil, rows, eval.Options{MaxTokens: 9})
	if err != context.Canceled {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	if _, err := eval.Run(context.Background(), &scorer{}, nil, nil, eval.Options{}); err == nil {
		t.Error("an evaluation of no rows has no error")
	}
}

// A row has 2 tokens of input, 2 of its target and 2 of each label: one and the end token.
func TestAPassHasAtMostMaxTokens(t *testing.T) {
	row := eval.Row{Input: []int32{1, 2}, Target: []int32{5, 9}}
	for _, c := range []struct{ prompts, most, rows int }{
		{1, 1, 1}, {1, 15, 1}, {1, 16, 2}, {1, 23, 2}, {1, 24, 3}, {3, 47, 1}, {3, 48, 2}, {3, 72, 3},
	} {
		var told []int
		s := &scorer{}
		_, err := eval.Run(context.Background(), s, make([]float32, c.prompts), slices.Repeat([]eval.Row{row}, 3),
			eval.Options{
				Labels: [][]int32{{5}, {7}}, EOS: 9, MaxTokens: c.most,
				PromptRows: slices.Repeat([]int{1}, c.prompts),
				Tell:       func(done, of int) { told = append(told, done) },
			})
		want := map[int][]int{1: {0, 1, 2, 3}, 2: {0, 2, 3}, 3: {0, 3}}[c.rows]
		if err != nil || !slices.Equal(told, want) || s.calls != len(want)-1 {
			t.Errorf("%+v: told %v in %d passes (%v), want %v", c, told, s.calls, err, want)
		}
	}
}

// ending is a scorer that fails, or ends the context's work, or both.
type ending struct {
	err    error
	cancel func()
}

func (e ending) NLL(_ []float32, f *batch.Forest) ([]float32, error) {
	e.cancel()
	return make([]float32, len(f.Targets)), e.err
}

func TestTheErrorOfAPassIsItsOwnUnlessTheContextEndedIt(t *testing.T) {
	failed, ended := errors.New("out of memory"), errors.New("the user ended it")
	for _, c := range []struct {
		err, cause, want error
	}{
		{failed, nil, failed}, {failed, ended, ended},
		{nil, ended, nil}, // all rows are measured
	} {
		ctx, cancel := context.WithCancelCause(context.Background())
		s := ending{c.err, func() {
			if c.cause != nil {
				cancel(c.cause)
			}
		}}
		o := eval.Options{MaxTokens: 9, Labels: [][]int32{{1}, {2}}}
		r, err := eval.Run(ctx, s, nil, []eval.Row{{Input: []int32{1}, Target: []int32{2}}}, o)
		if err != c.want || (r == nil) != (err != nil) {
			t.Errorf("pass fails with %v, context ends with %v: result %v, error %v, want %v",
				c.err, c.cause, r, err, c.want)
		}
		if _, err := eval.Predict(ctx, s, nil, [][]int32{{1}}, o); c.cause == nil && err != c.want {
			t.Errorf("pass fails with %v: a prediction has the error %v", c.err, err)
		}
	}
}

// Two rows are predicted with the same probability p = e^-0.5 / (e^-0.5 + e^-0.7). One is right.
func TestCalibrationIsMeasuredFromTheProbabilityOfThePredictedLabel(t *testing.T) {
	rows := []eval.Row{
		{Input: []int32{3}, Target: []int32{5}, Label: 0}, {Input: []int32{3}, Target: []int32{5}, Label: 0},
		{Input: []int32{3}, Target: []int32{7}, Label: 1},
	}
	r, err := eval.Run(context.Background(), &scorer{}, nil, rows,
		eval.Options{Labels: [][]int32{{5}, {7}}, Names: []string{"a", "b"}, EOS: 9, MaxTokens: 99})
	if err != nil {
		t.Fatal(err)
	}
	p := 1 / (1 + math.Exp(-0.2))
	if got, want := *r.CalibrationError, math.Abs(2.0/3-p); !(math.Abs(got-want) <= 1e-6) {
		t.Errorf("calibration error is %g, want %g", got, want)
	}
}

// voters is an ensemble. Member k has −log p = voters[k][id] for each token id.
type voters [][]float32

func (v voters) NLL(_ []float32, f *batch.Forest) ([]float32, error) {
	var nll []float32
	for _, t := range f.Targets {
		nll = append(nll, v[t.Of/4%3][t.ID]) // four examples for each of three members
	}
	return nll, nil
}

func TestAnEnsemblePredictsTheLabelWithMostVotes(t *testing.T) {
	rows := []eval.Row{
		{Input: []int32{9}, Target: []int32{1}, Label: 1},
		{Input: []int32{9, 9}, Target: []int32{2}, Label: 2},
	}
	for name, c := range map[string]struct {
		v    voters
		want int
	}{
		"two votes for 1":                      {voters{{3, 1, 2}, {9, 1, 2}, {0, 9, 9}}, 1},
		"two votes for 1, 0 has a better mean": {voters{{3, 1, 2}, {3, 1, 2}, {0, 99, 99}}, 1},
		"one vote each, 2 has the best mean":   {voters{{1, 2, 1.5}, {2, 1, 1.5}, {3, 3, 1}}, 2},
		"one vote each, 0 has the best mean":   {voters{{0, 2, 2}, {2, 1, 2}, {2, 3, 1}}, 0},
		"equal votes and means: the first":     {voters{{0, 2, 2}, {2, 0, 2}, {2, 2, 0}}, 0},
	} {
		accuracy := 0.5 // of the labels 1 and 2
		if c.want == 0 {
			accuracy = 0
		}
		for _, most := range []int{1, 1000} {
			r, err := eval.Run(context.Background(), c.v, make([]float32, 6), rows,
				eval.Options{Labels: [][]int32{{0}, {1}, {2}}, EOS: 8, MaxTokens: most,
					PromptRows: []int{2, 1, 3}})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Predicted, []int{c.want, c.want}) || *r.Accuracy != accuracy ||
				len(r.Members) != 3 {
				t.Errorf("%s: result is %+v, want label %d", name, r, c.want)
			}
			loss := 0.0
			for k, m := range r.Members {
				want := float64(c.v[k][1]+c.v[k][2]) / 2
				if !(math.Abs(m.Loss-want) <= 1e-6) {
					t.Errorf("%s: member %d has a loss of %g, want %g", name, k, m.Loss, want)
				}
				loss += want / 3
			}
			if !(math.Abs(r.Loss-loss) <= 1e-6) {
				t.Errorf("%s: loss is %g, want the mean %g", name, r.Loss, loss)
			}
			for i, got := range r.Losses { // the target of row i is token i + 1
				if want := float64(c.v[0][i+1]+c.v[1][i+1]+c.v[2][i+1]) / 3; !(math.Abs(got-want) <= 1e-6) {
					t.Errorf("%s: loss of row %d is %g, want the members' mean %g", name, i, got, want)
				}
			}
		}
	}
}

func TestMetricsEqualScikitLearn(t *testing.T) {
	// scikit-learn 1.9: matthews_corrcoef, confusion_matrix and
	// precision_recall_fscore_support(labels=[0, 1, 2, 3], zero_division=0).
	truth := []int{0, 0, 0, 1, 1, 2, 2, 2, 2, 0}
	predicted := []int{0, 1, 0, 1, 0, 2, 2, 0, 1, 0}
	m := eval.Confusion(truth, predicted, 4)
	wantM := [][]int{{3, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 2, 0}, {0, 0, 0, 0}}
	if !slices.EqualFunc(m, wantM, slices.Equal) {
		t.Errorf("confusion is %v, want %v", m, wantM)
	}
	if got, want := eval.MCC(m), 0.41275041275061913; !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("MCC is %.15g, want %.15g", got, want)
	}
	classes := eval.Classes(m, []string{"a", "b", "c", "d"})
	want := []eval.Class{
		{"a", 0.6, 0.75, 2. / 3, 4},
		{"b", 1. / 3, 0.5, 0.4, 2},
		{"c", 1, 0.5, 2. / 3, 4},
		{"d", 0, 0, 0, 0},
	}
	for i, c := range classes {
		w := want[i]
		if c.Label != w.Label || c.Rows != w.Rows ||
			!(math.Abs(c.Precision-w.Precision)+math.Abs(c.Recall-w.Recall)+math.Abs(c.F1-w.F1) <= 1e-12) {
			t.Errorf("class is %+v, want %+v", c, w)
		}
	}
	if got := eval.MCC([][]int{{3, 0}, {2, 0}}); got != 0 {
		t.Errorf("MCC of one predicted class is %g, want 0", got)
	}
}

func TestCalibrationErrorComparesConfidenceWithAccuracy(t *testing.T) {
	right := []bool{true, true, false, true, false}
	sure := []float64{0.99, 0.97, 0.98, 0.5, 0.51}
	// One bin has three rows with confidences of 2.94 in sum, two of them right. Another has two rows
	// with 1.01 in sum, one of them right.
	if got, want := eval.CalibrationError(right, sure), (0.94+0.01)/5; !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("calibration error is %g, want %g", got, want)
	}
	if got := eval.CalibrationError([]bool{true}, []float64{1}); got != 0 {
		t.Errorf("calibration error of a right row with confidence 1 is %g, want 0", got)
	}
}

// sure returns −log p = 0 for the label of an input's first token, and 9 for others.
type sure struct{}

func (sure) NLL(_ []float32, f *batch.Forest) (nll []float32, err error) {
	for _, t := range f.Targets {
		v := float32(9)
		if f.IDs[t.Row] == t.ID {
			v = 0
		}
		nll = append(nll, v)
	}
	return nll, nil
}

// With few rows of many labels, most samples of the rows lack some labels that the rows have.
func TestAMetricLiesInItsInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	o := eval.Options{EOS: 99, MaxTokens: 1000}
	for l := range 30 {
		o.Labels, o.Names = append(o.Labels, []int32{int32(l)}), append(o.Names, fmt.Sprint(l))
	}
	for _, right := range []float64{0.2, 0.6, 0.9} {
		var rows []eval.Row
		for range 40 {
			label := r.IntN(30)
			predicted := label
			if r.Float64() > right {
				predicted = r.IntN(30)
			}
			rows = append(rows, eval.Row{
				Input: []int32{int32(predicted)}, Target: []int32{int32(label), 99}, Label: label,
			})
		}
		res, err := eval.Run(context.Background(), sure{}, nil, rows, o)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]float64{"accuracy": *res.Accuracy, "macro_f1": *res.MacroF1} {
			if i := res.Intervals[name]; !(i[0] <= value && value <= i[1]) || i[0] == i[1] {
				t.Errorf("%g of the rows are right: %s is %g, its interval %g", right, name, value, i)
			}
		}
	}
}
