package run

import (
	"context"
	"errors"
	"strings"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/files"
)

// StarterRows are the rows of a starter, and what its evaluations take.
type StarterRows struct {
	*Rows
	EvalEvery int     // steps
	EvalShare float64 // the evaluations' share of the training time, estimated
}

// WriteStarter writes a task file and returns its rows, which it reads to find out that the file
// works. If rows are too long, the file cuts their inputs. It chooses how often and on how many rows to
// evaluate. A file that does not work is written with an error, unless ctx ends.
func WriteStarter(ctx context.Context, starter config.Starter, b *base.Base) (*StarterRows, error) {
	starter.ValidFraction, starter.EvalEvery = 0.1, 50
	var text string
	cut := false
	try := func() (*Rows, error) {
		if text = starter.Text(); cut {
			text = config.CutInput(text)
		}
		task, err := config.Parse(starter.File, []byte(text))
		if err != nil {
			return nil, err
		}
		return LoadRows(ctx, task, b)
	}
	found := &StarterRows{}
	var err error
	found.Rows, err = try()
	for _, share := range []float64{0.2, 0.3, 0.5} { // few rows
		if errors.Is(err, data.ErrSplit) {
			starter.ValidFraction = share
			found.Rows, err = try()
		}
	}
	if err != nil && strings.Contains(err.Error(), "data.on_too_long") {
		cut = true
		found.Rows, err = try()
	}
	if err == nil && len(found.Valid) > 0 {
		plan := planEvaluations(found.Rows, config.StarterBatch, flopsPerToken(b))
		found.EvalEvery, found.EvalShare = plan.every, plan.share
		if plan.every != starter.EvalEvery || plan.rows > 0 {
			starter.EvalEvery, starter.EvalRows = plan.every, plan.rows
			found.Rows, err = try()
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, errors.Join(err, files.WriteBytes(starter.File, []byte(text)))
}

const (
	maxEvalShare = 0.2 // of the training time
	minValid     = 100 // rows; fewer choose a prompt by chance
	minEvals     = 5   // during a training; fewer can miss the best prompt
)

// evaluations are when and on how many rows a starter evaluates.
type evaluations struct {
	every int     // steps
	rows  int     // train.eval_rows; 0: all
	share float64 // of the training time
}

// planEvaluations returns evaluations that take at most maxEvalShare of the time of three epochs: rarer
// ones, down to minEvals, and then fewer rows, down to minValid.
func planEvaluations(r *Rows, batch int, flopsPerToken float64) evaluations {
	const epochs = 3
	steps := (len(r.Train.Rows)*epochs + batch - 1) / batch
	trained := r.trainingCost(steps, batch)
	first, later := r.evaluationCost(untrainedPrefixes), r.evaluationCost(trainedPrefixes)
	evaluated := func(every int, rows float64) float64 { // rows: a share
		sum := float64((steps+every-1)/every) * later * rows
		if !leftOut(first*rows, trained, flopsPerToken) {
			sum += first * rows
		}
		return sum
	}
	shareOf := func(evaluated float64) float64 { return evaluated / (evaluated + trained) }
	e := evaluations{every: 50}
	for _, next := range []int{100, 200, 500, 1000, 2000, 5000, 10000} {
		if shareOf(evaluated(e.every, 1)) <= maxEvalShare || steps/next < minEvals {
			break
		}
		e.every = next
	}
	e.share = shareOf(evaluated(e.every, 1))
	most := 0 // rows of the largest set
	for _, set := range r.Valid {
		most = max(most, len(set.Rows))
	}
	for rows := most / 10 * 10; e.share > maxEvalShare && rows >= minValid; rows -= 10 {
		e.rows, e.share = rows, shareOf(evaluated(e.every, float64(rows)/float64(most)))
	}
	if e.rows == most {
		e.rows = 0
	}
	return e
}
