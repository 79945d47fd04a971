package model

import (
	"math"

	"ptune/internal/ops"
)

// Recompute is which values the runs of a gradient make again on the way back rather than keep. They are the same to the bit.
type Recompute struct {
	All    bool // the widest of every layer, an MLP's, and what attention reads
	Layers int  // or the widest of so many layers

	// Or of more layers where more rows than these are computed at a time, and of fewer where fewer are, as keeps what a run takes where it
	// is: memory is there for the largest batch, and the others use it.
	Rows  int
	Saved float64 // the part of what a run of Rows takes otherwise that Layers save; 0: it is Layers for any number of rows
}

// of is what a run of so many rows makes again: as few layers' values as let the rest, which grows with the rows, fit in the room of Rows.
func (r Recompute) of(rows int) ops.Recompute {
	if r.All {
		return ops.Recompute{Marked: math.MaxInt, Attended: true}
	}
	if r.Saved <= 0 {
		return ops.Recompute{Marked: r.Layers}
	}
	room := (1 - r.Saved) * float64(r.Rows) / float64(rows) // of what these rows take with nothing made again
	const nothing = 1e-9                                    // that rounding may add
	return ops.Recompute{Marked: max(0, int(math.Ceil(float64(r.Layers)*(1-room)/r.Saved-nothing)))}
}

// RecomputedLayers is how many layers make values again where so many rows are computed at a time.
func (m *Model) RecomputedLayers(rows int) int { return min(m.Layers(), m.Recompute.of(rows).Marked) }
