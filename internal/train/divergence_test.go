package train

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// broken is an objective that changes its results at one call.
type broken struct {
	bowl
	calls, at int
	change    func(nll, grad []float32)
}

func (s *broken) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	nll, err := s.bowl.LossGrad(x, f, grad)
	if s.calls++; s.calls == s.at {
		s.change(nll, grad)
	}
	return nll, err
}

// The limit is three times the first loss, or 5 more.
func TestALossIsFarAboveTheFirstBeyondALimit(t *testing.T) {
	for first, limit := range map[report.Number]report.Number{0: 5, 1: 6, 2.5: 7.5, 4: 12, 10: 30} {
		var d divergence
		check := func(step int, loss report.Number) error {
			return d.check(report.Step{Step: step, Loss: loss, GradNorm: 1}, []float32{float32(step)})
		}
		if err := check(1, first); err != nil {
			t.Fatal(err)
		}
		for step := 2; step < 40; step++ { // at the limit all is well
			if err := check(step, limit); err != nil || d.goodStep != step-1 {
				t.Fatalf("first loss %g: %g at step %d: %v, the good prompt is of step %d", first, limit,
					step, err, d.goodStep)
			}
		}
		for step := 40; step < 59; step++ {
			if err := check(step, limit+0.01); err != nil {
				t.Fatalf("first loss %g: above %g at step %d: %v", first, limit, step, err)
			}
		}
		err := check(59, limit+0.01)
		if !errors.Is(err, ErrDiverged) || d.goodStep != 38 || d.good[0] != 39 {
			t.Errorf("first loss %g: twenty steps above %g: %v, the good prompt is %v of step %d",
				first, limit, err, d.good, d.goodStep)
		}
		if err != nil && strings.Contains(err.Error(), "prompt norm") {
			t.Errorf("error is %v, but no prompt is trained", err)
		}
	}
	e := report.Step{Step: 1, Loss: report.Number(math.NaN()), TokenNorms: []report.Number{1}, PromptNorm: 7}
	if err := (&divergence{}).check(e, nil); err == nil || !strings.HasSuffix(err.Error(), ", prompt norm 7") {
		t.Errorf("error is %v, want one with the prompt's norm", err)
	}
}

func TestAValueThatIsNotFiniteEndsTheRunAndIsNeverTheBest(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, change := range map[string]func(nll, grad []float32){
		"loss NaN":           func(nll, _ []float32) { nll[0] = nan },
		"loss infinite":      func(nll, _ []float32) { nll[1] = inf },
		"gradient NaN":       func(_, grad []float32) { grad[1] = nan },
		"gradient infinite":  func(_, grad []float32) { grad[0] = inf },
		"gradient all below": func(_, grad []float32) { grad[0], grad[1] = -inf, -inf },
	} {
		for _, optimizer := range Optimizers() {
			c := config()
			c.Optimizer.Name = optimizer
			job := Job{Config: c, Values: []float32{3, -2}, Examples: examples(10),
				Tell: func(report.Event) {}}
			r, err := Run(context.Background(), &broken{at: 13, change: change}, job)
			wantDivergence(t, name+" with "+optimizer, r, err, 12)
		}
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, optimizer := range []string{"adamw", "adafactor"} {
			c := config()
			c.Optimizer.Name = optimizer
			for which := range 2 {
				var kept *State
				ctx, cancel := context.WithCancel(context.Background())
				tell := func(e report.Event) {
					if s, ok := e.(report.Step); ok && s.Step == 12 {
						cancel()
					}
				}
				job := Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Tell: tell}
				job.Save = func(s *State) error { kept = s; return nil }
				Run(ctx, &bowl{}, job)
				if kept == nil {
					t.Fatal("no state was saved")
				}
				if m := kept.moments[0]; which < len(m) {
					m[which][0] = bad
				} else {
					continue
				}
				job.Tell, job.Save, job.From = func(report.Event) {}, nil, kept
				r, err := Run(context.Background(), &bowl{}, job)
				wantDivergence(t, "moments of "+optimizer, r, err, 12)
			}
		}
	}
}

// wantDivergence checks that the run diverged in the step after steps and that its best is finite.
func wantDivergence(t *testing.T, name string, r *Result, err error, steps int) {
	t.Helper()
	if !errors.Is(err, ErrDiverged) || r.StopReason != StopDiverged || r.Steps != steps {
		t.Errorf("%s: %v after step %d (%s), want divergence in the step after %d",
			name, err, r.Steps, r.StopReason, steps)
		return
	}
	if !strings.Contains(err.Error(), "at step 13: ") {
		t.Errorf("%s: the error is %q", name, err)
	}
	if !finite(norm(r.Best)) || r.BestStep < 10 {
		t.Errorf("%s: the best values are %v, of step %d", name, r.Best, r.BestStep)
	}
}
