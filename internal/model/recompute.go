package model

import (
	"math"

	"ptune/internal/ops"
)

// Recompute selects which activations of a step the backward pass computes again instead of reading
// stored ones. The results are the same to the bit.
type Recompute struct {
	All    bool // the widest of every layer, which are the MLP's, and what attention reads
	Layers int  // otherwise: the widest of this many layers

	// Rows and Saved scale Layers with the batch: a batch of more than Rows rows recomputes more
	// layers, a smaller one fewer, so that every batch fits the memory planned for Rows. Saved is
	// the part of the memory of Rows rows that Layers saves. 0: Layers for every batch.
	Rows  int
	Saved float64
}

// of returns what a step of rows rows recomputes: the fewest layers with which its activations,
// which grow with the rows, fit the memory planned for r.Rows.
func (r Recompute) of(rows int) ops.Recompute {
	if r.All {
		return ops.Recompute{Marked: math.MaxInt, AttentionInputs: true}
	}
	if r.Saved <= 0 {
		return ops.Recompute{Marked: r.Layers}
	}
	// The planned memory, as a part of what these rows need without recomputing.
	planned := (1 - r.Saved) * float64(r.Rows) / float64(rows)
	const rounding = 1e-9
	layers := math.Ceil(float64(r.Layers)*(1-planned)/r.Saved - rounding)
	return ops.Recompute{Marked: max(0, int(layers))}
}

// RecomputedLayers returns the number of layers with recomputed activations in a step that computes rows
// rows at a time.
func (m *Model) RecomputedLayers(rows int) int {
	return min(m.Layers(), m.Recompute.of(rows).Marked)
}
