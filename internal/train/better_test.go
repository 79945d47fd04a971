package train

import (
	"context"
	"math"
	"testing"

	"ptune/internal/report"
)

func TestAPromptWhoseLossIsNaNIsNeverTheBest(t *testing.T) {
	for _, best := range BestBy() {
		r := &run{result: &Result{}}
		r.Config.Best = best
		r.result.Valid, r.result.Loss = []report.Eval{{}}, 1
		if r.better(math.NaN(), math.Inf(-1)) {
			t.Errorf("with train.best %s a prompt of NaN is better", best)
		}
	}
}

func TestAnEqualScoreWithALowerLossIsNoWorseEvaluation(t *testing.T) {
	for _, c := range []struct {
		minGain float64
		losses  []float64 // all with the accuracy 0.5
		worse   int
	}{
		{0, []float64{3, 2, 1}, 0},
		{0, []float64{3, 2, 2}, 1},
		{0, []float64{3, 4, 2}, 0},
		{0.01, []float64{3, 2, 1}, 2},
	} {
		accuracy := 0.5
		r := &run{
			Job:    Job{Config: Config{Best: BestAccuracy, MinGain: c.minGain}, Tell: func(report.Event) {}},
			result: &Result{Loss: math.Inf(1)}, params: &parameters{}, toBeat: math.Inf(1),
		}
		for _, loss := range c.losses {
			r.Evaluate = func(context.Context, []float32) ([]report.Eval, error) {
				return []report.Eval{{Loss: report.Number(loss), Accuracy: &accuracy}}, nil
			}
			if err := r.evaluate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if r.worse != c.worse {
			t.Errorf("min_gain %g, losses %v: %d worse evaluations, want %d", c.minGain, c.losses, r.worse, c.worse)
		}
	}
}
