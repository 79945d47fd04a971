package run

import (
	"math"
	"strings"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/files"
)

// StarterRows are the rows of a starter, and what its evaluations take.
type StarterRows struct {
	*Rows
	EvalEvery int     // steps
	EvalShare float64 // the evaluations' share of the training time, estimated
}

// WriteStarter writes a task file and returns its rows, which it reads to find out that the file
// works. If rows are too long, the file cuts their inputs. It chooses how often and, without a
// validation file, on how many rows to evaluate.
func WriteStarter(starter config.Starter, b *base.Base) (*StarterRows, error) {
	starter.ValidFraction, starter.EvalEvery = 0.1, 50
	cut := false
	write := func() (*Rows, error) {
		text := starter.Text()
		if cut {
			text = config.CutInput(text)
		}
		return writeTask(starter.File, text, b)
	}
	rows, err := write()
	if err != nil && strings.Contains(err.Error(), "data.on_too_long") {
		cut = true
		rows, err = write()
	}
	if err != nil {
		return nil, err
	}
	found := &StarterRows{Rows: rows}
	for len(rows.Valid) > 0 {
		every, share := planEvaluations(rows, config.StarterBatch)
		smaller := starter.Valid == "" && share > maxEvalShare && starter.ValidFraction > 0.01 &&
			len(rows.Valid[0].Rows) >= 2*minValid
		if !smaller && every == starter.EvalEvery {
			found.Rows, found.EvalEvery, found.EvalShare = rows, every, share
			break
		}
		if starter.EvalEvery = every; smaller {
			starter.ValidFraction /= 2
		}
		if rows, err = write(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

const (
	maxEvalShare = 0.2 // of the training time
	minValid     = 100 // rows; fewer choose a prompt by chance
	minEvals     = 5   // during a training; fewer can miss the best prompt

	// The likeliest of many labels is found without computing all of them. With 77 labels of SmolLM2,
	// 27 tokens a row were computed on average.
	searchedLabels = 6
)

// planEvaluations returns every how many steps to evaluate so that this takes at most maxEvalShare of
// the time of three epochs, or as many as give minEvals evaluations, and the share that results.
// The cost of a row is estimated by its tokens: a training step computes forward and backward, which
// together take about three times as long as forward alone.
func planEvaluations(r *Rows, batch int) (every int, share float64) {
	const epochs, forwardAndBackward = 3, 3
	trained := 0.0
	for _, row := range r.Train.Rows {
		trained += float64(len(row.Input)+len(row.Target)) * epochs * forwardAndBackward
	}
	labels := 0
	for _, c := range r.Choices {
		labels += len(c.IDs)
	}
	if n := len(r.Choices); n > searchedLabels {
		labels = labels * searchedLabels / n
	}
	evaluated := 0.0
	for _, set := range r.Valid {
		for _, row := range set.Rows {
			evaluated += float64(len(row.Input) + max(labels, len(row.Target)))
		}
	}
	steps := math.Ceil(float64(len(r.Train.Rows)*epochs) / float64(batch))
	shareAt := func(every int) float64 {
		evals := math.Ceil(steps/float64(every)) + 1 // the first one before training
		return evals * evaluated / (evals*evaluated + trained)
	}
	every = 50
	for _, next := range []int{100, 200, 500, 1000, 2000, 5000, 10000} {
		if shareAt(every) <= maxEvalShare || steps/float64(next) < minEvals {
			break
		}
		every = next
	}
	return every, shareAt(every)
}

func writeTask(path, text string, b *base.Base) (*Rows, error) {
	if err := files.WriteBytes(path, []byte(text)); err != nil {
		return nil, err
	}
	task, err := config.Load(path, nil)
	if err != nil {
		return nil, err
	}
	return LoadRows(task, b)
}
