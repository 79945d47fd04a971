package run

import (
	"fmt"

	"ptune/internal/base"
	"ptune/internal/infer"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Costs are counted, not measured, so that what depends on them is the same on every machine. The unit
// is one token computed forward.

// forwardAndBackward is the cost of a token in a training step, in tokens computed forward.
const forwardAndBackward = 3

// The likeliest of many labels is searched (infer.Search). These are the prefixes of labels computed for
// a row of 77 labels on SmolLM2, after a trained prompt and after one whose answers are still open.
const (
	trainedPrefixes   = 5
	untrainedPrefixes = 50
)

// trainingCost returns the cost of steps on batches of these rows.
func (r *Rows) trainingCost(steps, batch int) float64 {
	tokens := 0
	for _, row := range r.Train.Rows {
		tokens += len(row.Input) + len(row.Target)
	}
	n := len(r.Train.Rows)
	return forwardAndBackward * float64(steps) * float64(min(batch, n)) * float64(tokens) / float64(n)
}

// evaluationCost returns the cost of one evaluation of the validation rows where that many prefixes of
// labels are searched for a row. A small tree of labels is computed whole, and so is one for means.
func (r *Rows) evaluationCost(prefixes int) float64 {
	var labels [][]int32
	for _, c := range r.Choices {
		labels = append(labels, c.IDs)
	}
	tree := infer.NewLabelTree(infer.LabelEnds(labels, r.EOS))
	if tree.Small() || r.Mean || prefixes > tree.Rows() {
		prefixes = tree.Rows()
	}
	cost := 0
	for _, set := range r.Valid {
		for _, row := range set.Rows {
			cost += len(row.Input) + len(row.Target) + prefixes
		}
	}
	return float64(cost)
}

// flopsPerToken returns the FLOPs of the matrix products of a base's layers for a token.
func flopsPerToken(b *base.Base) float64 {
	flops := 0.0
	for _, m := range b.Modules() {
		flops += 2 * float64(m.In) * float64(m.Out)
	}
	return flops
}

// An evaluation before the first step is left out if it costs more than both of these. The second one
// takes ten to twenty seconds on two cores.
const (
	maxFirstShare = 0.05 // of the training's cost
	smallFLOPs    = 1e12
)

// leftOut reports whether the evaluation before the first step is left out, of costs in tokens.
func leftOut(first, trained, flopsPerToken float64) bool {
	return first > maxFirstShare*trained && first*flopsPerToken > smallFLOPs
}

// firstCost returns the cost of an evaluation before the first step, and of the training.
func (r *Run) firstCost(steps, batch int) (first, trained float64) {
	first, trained = r.Rows.evaluationCost(untrainedPrefixes), r.Rows.trainingCost(steps, batch)
	if r.Task.Train.Best == train.BestExactMatch { // one more pass over inputs and targets
		for _, set := range r.Rows.Valid {
			for _, row := range set.Rows {
				first += float64(len(row.Input) + len(row.Target))
			}
		}
	}
	return first, trained
}

// Notes returns a note for each set of which training evaluates only some rows, and one if there is no
// evaluation before the first step.
func (r *Run) Notes() []report.Note {
	notes := r.Rows.Sampled
	if r.Config.NoFirstEval {
		first, trained := r.firstCost(r.Config.Steps, r.Config.BatchSize)
		notes = append(notes[:len(notes):len(notes)], report.Note(fmt.Sprintf("the first evaluation "+
			"is after step %d: one before the first step would take about %.0f %% of the training's time",
			min(r.Config.EvalEvery, r.Config.Steps), 100*first/trained)))
	}
	return notes
}
