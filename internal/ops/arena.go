package ops

import (
	"runtime/debug"
	"slices"

	"ptune/internal/kernels"
)

// Arena hands out buffers and takes them back. A run takes and gives in the same order every time, so after the first run of
// a size nothing is allocated.
type Arena struct {
	free     [][]float32 // by capacity
	rows     int         // packed rows of this run
	capacity int         // the most packed rows that buffers have room for
}

// headroom is what the room for rows is rounded up to: batches differ by a few rows, and each new largest one would
// otherwise want all buffers anew.
const headroom = 16

// expect prepares for a run of that many packed rows: when they are more than ever, the smaller buffers are given up, and
// collected before the larger ones are made, for together they would be the peak of the whole run.
func (a *Arena) expect(rows int) {
	if a.rows = max(1, rows); rows > a.capacity {
		a.capacity = (rows + headroom - 1) / headroom * headroom
		if a.free != nil {
			a.free = nil
			debug.FreeOSMemory()
		}
	}
}

// take returns a buffer of n values, of any content. It has room for as many at the arena's capacity, so that whatever the
// batch, a value of so many columns finds the buffers that such values had before.
func (a *Arena) take(n int) []float32 {
	room := n
	if a.capacity < 8*a.rows { // not for the few rows of a generation's step
		room = n*a.capacity/a.rows + 1
	}
	i, _ := slices.BinarySearchFunc(a.free, room, func(b []float32, n int) int { return cap(b) - n })
	if i < len(a.free) && cap(a.free[i]) <= 2*room+1024 {
		b := a.free[i]
		a.free = slices.Delete(a.free, i, i+1)
		return b[:n]
	}
	return make([]float32, n, room)
}

func (a *Arena) give(b []float32) {
	i, _ := slices.BinarySearchFunc(a.free, cap(b), func(f []float32, n int) int { return cap(f) - n })
	a.free = slices.Insert(a.free, i, b[:cap(b)])
}

// grown makes m a [rows, cols] matrix of any content, in its own memory if that is enough: what an operator keeps for itself
// from its way forward to its way back.
func grown(m *Matrix, rows, cols int) Matrix {
	if cap(m.Data) < rows*cols {
		m.Data = make([]float32, rows*cols)
	}
	*m = kernels.View(m.Data[:cap(m.Data)], rows, cols)
	return *m
}
