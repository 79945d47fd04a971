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

// spoilt is an objective that gives something that is no number at one call.
type spoilt struct {
	bowl
	calls, at int
	spoil     func(nll, grad []float32)
}

func (s *spoilt) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	nll, err := s.bowl.LossGrad(x, f, grad)
	if s.calls++; s.calls == s.at {
		s.spoil(nll, grad)
	}
	return nll, err
}

func TestWhatIsNoNumberEndsTheRunInItsStepAndIsNeverBest(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, spoil := range map[string]func(nll, grad []float32){
		"loss NaN":           func(nll, _ []float32) { nll[0] = nan },
		"loss infinite":      func(nll, _ []float32) { nll[1] = inf },
		"gradient NaN":       func(_, grad []float32) { grad[1] = nan },
		"gradient infinite":  func(_, grad []float32) { grad[0] = inf },
		"gradient all below": func(_, grad []float32) { grad[0], grad[1] = -inf, -inf },
	} {
		for _, optimizer := range Optimizers() {
			c := config()
			c.Optimizer.Name = optimizer
			r, err := Run(context.Background(), &spoilt{at: 13, spoil: spoil}, Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Tell: func(report.Event) {}})
			check(t, name+" of "+optimizer, r, err, 12)
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
				Run(ctx, &bowl{}, Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Tell: tell, Save: func(s *State) error { kept = s; return nil }})
				if kept == nil {
					t.Fatal("there is no state")
				}
				if m := kept.moments[0]; which < len(m) {
					m[which][0] = bad
				} else {
					continue
				}
				r, err := Run(context.Background(), &bowl{}, Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Tell: func(report.Event) {}, From: kept})
				check(t, "moments of "+optimizer, r, err, 12)
			}
		}
	}
}

// check asks for a divergence in the step behind steps, with numbers as the best.
func check(t *testing.T, name string, r *Result, err error, steps int) {
	t.Helper()
	if !errors.Is(err, ErrDiverged) || r.StopReason != StopDiverged || r.Steps != steps {
		t.Errorf("%s: %v after step %d (%s), want divergence behind step %d", name, err, r.Steps, r.StopReason, steps)
		return
	}
	if !strings.Contains(err.Error(), "at step 13: ") {
		t.Errorf("%s: the error is %q", name, err)
	}
	if !finite(norm(r.Best)) || r.BestStep < 10 {
		t.Errorf("%s: the best is %v of step %d", name, r.Best, r.BestStep)
	}
}
