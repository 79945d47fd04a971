package train

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// plateau is an objective with a gradient of 5 in the first ten steps and of low later. Its loss falls
// from 9 to end at the same step.
type plateau struct {
	low, end float32
	calls    *int
}

func (p plateau) LossGrad(_ []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	loss, g := float32(9), float32(5)
	if *p.calls++; *p.calls > 10 {
		loss, g = p.end, p.low
	}
	nll := make([]float32, len(f.Targets))
	for i := range nll {
		nll[i] = loss
		grad[0] += g
	}
	return nll, nil
}

// stuckEvents returns the Stuck events of a run of 100 steps with a GuessLoss of 0.8. If split is not 0
// the run is interrupted after that step and resumed.
func stuckEvents(t *testing.T, p plateau, split int) []report.Stuck {
	t.Helper()
	var all []report.Stuck
	path := filepath.Join(t.TempDir(), "state")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := config()
	c.GuessLoss, c.PackedTokens, p.calls = 0.8, 1000, new(int)
	job := Job{Config: c, Values: []float32{3, -2}, Examples: examples(10)}
	job.Save = func(s *State) error { return s.Save(path) }
	job.Tell = func(e report.Event) {
		switch e := e.(type) {
		case report.Stuck:
			all = append(all, e)
		case report.Step:
			if e.Step == split {
				cancel()
			}
		}
	}
	_, err := Run(ctx, p, job)
	if split != 0 {
		if job.From, _, err = LoadState(path); err == nil {
			_, err = Run(context.Background(), p, job)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAStuckRunSaysSoOnce(t *testing.T) {
	all := stuckEvents(t, plateau{low: 0.03, end: 1}, 0)
	if len(all) != 1 {
		t.Fatalf("%d events, want 1: %+v", len(all), all)
	}
	e := all[0]
	if e.Step < 10+stuckSteps || e.Step > 60 || e.GuessLoss != 0.8 || e.LargestGradNorm != 5 ||
		e.GradNorm < 0.03 || e.GradNorm > 0.05 || e.Loss < 1 || e.Loss > 1.1 {
		t.Errorf("the event is of step %d: %v", e.Step, e)
	}
	for _, split := range []int{5, 30, e.Step - 1, e.Step + 1} {
		if got := stuckEvents(t, plateau{low: 0.03, end: 1}, split); !slices.Equal(got, all) {
			t.Errorf("interrupted after step %d the events are %+v, want %+v", split, got, all)
		}
	}
}

func TestAStuckRunIsFoundByRunningMeans(t *testing.T) {
	var s stuck
	for i, c := range []struct{ grad, loss, meanGrad, meanLoss float64 }{
		{5, 10, 5, 10}, {0, 5, 4, 9}, {10, 9, 5.2, 9}, {0.2, 4, 4.2, 8},
	} {
		s.check(report.Step{GradNorm: report.Number(c.grad), Loss: report.Number(c.loss)}, 1)
		if !(math.Abs(s.grad-c.meanGrad) <= 1e-12) || !(math.Abs(s.loss-c.meanLoss) <= 1e-12) {
			t.Errorf("after step %d: means %g and %g, want %g and %g", i+1, s.grad, s.loss, c.meanGrad, c.meanLoss)
		}
	}
	for _, c := range []struct {
		grad, loss float64 // of all steps, where the largest gradient was 1
		steps      int     // for which the run is stuck then
	}{{0.005, 2, 3}, {0.01, 2, 0}, {0.005, 0.5, 0}, {0.005, 1, 0}} {
		s := stuck{largest: 1, grad: c.grad, loss: c.loss}
		for range 3 {
			s.check(report.Step{GradNorm: report.Number(c.grad), Loss: report.Number(c.loss)}, 1)
		}
		if s.steps != c.steps {
			t.Errorf("gradient %g, loss %g: stuck for %d steps, want %d", c.grad, c.loss, s.steps, c.steps)
		}
	}
}

func TestARunThatLearnsIsNotStuck(t *testing.T) {
	for name, p := range map[string]plateau{
		"small gradients and a low loss":     {low: 0.03, end: 0.5},
		"a high loss with usual gradients":   {low: 0.2, end: 1},
		"small gradients at the loss of 0.8": {low: 0.03, end: 0.7},
	} {
		if all := stuckEvents(t, p, 0); all != nil {
			t.Errorf("%s: %+v", name, all)
		}
	}
}
