package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"ptune/internal/report"
)

// lateJob returns a job without an evaluation before the first step. Each evaluation has the next loss.
func lateJob(e *events, losses ...float64) Job {
	c, n := config(), 0
	c.EvalEvery, c.Patience, c.NoFirstEval = 2, 3, true
	evaluate := func(context.Context, []float32) ([]report.Eval, error) {
		n++
		return []report.Eval{{Set: "a", Loss: report.Number(losses[n-1])}}, nil
	}
	return Job{
		Config: c, Values: []float32{3, -2}, Examples: examples(10), Evaluate: evaluate, Tell: e.tell,
	}
}

func TestWithoutTheFirstEvaluationTheFirstAfterStepsBeginsBestAndPatience(t *testing.T) {
	e := &events{}
	r, err := Run(context.Background(), &bowl{}, lateJob(e, math.NaN(), 4, 3, 5, 5, 5, 1))
	if err != nil || r.StopReason != StopPatience || r.Steps != 12 || r.BestStep != 6 || r.Loss != 3 {
		t.Errorf("result is %+v (%v), want the values of step 6, stopped at step 12", r, err)
	}
	if len(e.evals) != 6 || e.evals[0].Step != 2 || e.evals[0].Best || !e.evals[1].Best {
		t.Errorf("evaluations are %+v, want the first at step 2", e.evals)
	}
}

func TestARunThatDivergesBeforeItsFirstEvaluationKeepsTheLastGoodPrompt(t *testing.T) {
	job := lateJob(&events{}, 1)
	job.EvalEvery = 50
	r, err := Run(context.Background(), &bowl{spoil: 13}, job)
	if !errors.Is(err, ErrDiverged) || r.BestStep != 11 || slices.Equal(r.Best, job.Values) {
		t.Errorf("result is %+v (%v), want the values of step 11", r, err)
	}
}

func TestARunInterruptedBeforeItsFirstEvaluationResumesToTheSameResult(t *testing.T) {
	losses := []float64{4, 3, 5, 5, 5, 1}
	straight, err := Run(context.Background(), &bowl{}, lateJob(&events{}, losses...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	job := lateJob(&events{}, losses...)
	job.Tell = func(e report.Event) {
		if s, ok := e.(report.Step); ok && s.Step == 1 {
			cancel()
		}
	}
	var state *State
	job.Save = func(s *State) error {
		state = s
		return nil
	}
	if _, err := Run(ctx, &bowl{}, job); !errors.Is(err, context.Canceled) || state.Step != 1 {
		t.Fatalf("interrupted with %v in state %+v, want step 1", err, state)
	}
	e := &events{}
	job = lateJob(e, losses...)
	job.From = state
	r, err := Run(context.Background(), &bowl{}, job)
	if err != nil || r.BestStep != straight.BestStep || !slices.Equal(r.Best, straight.Best) ||
		e.evals[0].Step != 2 {
		t.Errorf("resumed: %+v (%v), want %+v", r, err, straight)
	}
}
