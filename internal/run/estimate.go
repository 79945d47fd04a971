package run

import (
	"context"
	"fmt"
	"math"
	"time"

	"ptune/internal/data"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Estimate is how long a training will take, in seconds. Early stopping makes it shorter.
type Estimate struct {
	StepSeconds float64 `json:"seconds_step"`          // of a mean step
	RowSeconds  float64 `json:"seconds_row,omitempty"` // of evaluating a row after the initial prompt
	EvalRows    int     `json:"evaluation_rows"`       // of one evaluation
	Evaluations int     `json:"evaluations"`
	Seconds     float64 `json:"seconds"` // of the training with its evaluations
}

// Text returns the estimate for people.
func (e *Estimate) Text() string {
	text := fmt.Sprintf("time: about %s: steps of %s", timeText(e.Seconds), report.SecondsText(e.StepSeconds))
	if e.Evaluations > 0 {
		text += fmt.Sprintf(", %d evaluations of %d rows, %s a row at first",
			e.Evaluations, e.EvalRows, report.SecondsText(e.RowSeconds))
	}
	return text
}

// timeText returns a long time in minutes, a short one in seconds.
func timeText(seconds float64) string {
	if seconds >= 99.5 {
		return fmt.Sprintf("%.0f minutes", seconds/60)
	}
	return fmt.Sprintf("%.2g s", seconds)
}

// measuredRows are evaluated of each validation set to find what a row takes.
const measuredRows = 8

// Estimate measures the first step and the evaluation of a few rows, and adds to a plan with FLOPs what
// the whole training takes. It changes neither the prompt nor anything else of the run.
func (r *Run) Estimate(ctx context.Context, p *Plan) error {
	defer restore(r.Base)()
	p.apply(r.Base)
	defer StopWith(ctx, r.Base)()
	e := &Estimate{}
	var err error
	if e.StepSeconds, err = r.measureStep(p.StepFLOPs); err != nil {
		return fmt.Errorf("measure a step: %w", err)
	}
	e.Seconds = float64(p.Steps) * e.StepSeconds
	if len(r.Rows.Valid) > 0 {
		e.Evaluations = (p.Steps + r.Config.EvalEvery - 1) / r.Config.EvalEvery
		few := *r.Rows
		few.Valid = nil
		for _, set := range r.Rows.Valid {
			e.EvalRows += len(set.Rows)
			few.Valid = append(few.Valid, someRows(set, measuredRows))
		}
		begin := time.Now()
		if _, err := few.evaluate(r.Base, r.Task, nil)(ctx, r.Prompt.Values); err != nil {
			return err
		}
		untrained, trained := r.Rows.evaluationCost(untrainedPrefixes), r.Rows.evaluationCost(trainedPrefixes)
		first := time.Since(begin).Seconds() * untrained / few.evaluationCost(untrainedPrefixes)
		e.RowSeconds = first / float64(e.EvalRows)
		e.Seconds += float64(e.Evaluations) * first * trained / untrained
		if !r.Config.NoFirstEval {
			e.Evaluations++
			e.Seconds += first
		}
	}
	p.Estimate = e
	return nil
}

// measuredSteps are measured if they take less than a second together: the first of short steps takes
// longer than the others, because it allocates its memory.
const measuredSteps = 3

// measureStep computes loss and gradient of the first batch and returns the seconds of a step with the
// FLOPs given.
func (r *Run) measureStep(flops float64) (float64, error) {
	forests := train.FirstBatches([]train.Job{r.Job(nil)})
	planned := 0.0
	for _, f := range forests {
		p, err := r.Base.Plan(f)
		if err != nil {
			return 0, err
		}
		planned += p.FLOPs
	}
	grad := make([]float32, len(r.Prompt.Values))
	fastest, begin := math.Inf(1), time.Now()
	for range measuredSteps {
		step := time.Now()
		for _, f := range forests {
			if _, err := r.Base.LossGrad(r.Prompt.Values, f, grad); err != nil {
				return 0, err
			}
		}
		fastest = min(fastest, time.Since(step).Seconds())
		if time.Since(begin) > time.Second {
			break
		}
	}
	return fastest * flops / planned, nil
}

// someRows returns at most n rows of a set, at equal distances.
func someRows(set *data.Set, n int) *data.Set {
	some := *set
	some.Rows = nil
	n = min(n, len(set.Rows))
	for k := range n {
		some.Rows = append(some.Rows, set.Rows[k*len(set.Rows)/n])
	}
	return &some
}
