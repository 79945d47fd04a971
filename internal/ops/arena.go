package ops

import "slices"

// Arena hands out buffers and takes them back. A run takes and gives in the same order every time, so after the first run of
// a size nothing is allocated.
type Arena struct {
	free     [][]float32 // by capacity
	rows     int         // packed rows of this run
	capacity int         // the most packed rows that buffers have room for
}

// headroom is what the room for rows is rounded up to: batches differ by a few rows, and each new largest one would
// otherwise want all buffers anew.
const headroom = 64

// expect prepares for a run of that many packed rows: when they are more than ever, the smaller buffers are left to the
// garbage collector, so that they do not lie beside the larger ones for good.
func (a *Arena) expect(rows int) {
	if a.rows = max(1, rows); rows > a.capacity {
		a.capacity, a.free = (rows+headroom-1)/headroom*headroom, nil
	}
}

// take returns a buffer of n values, of any content: the smallest free one that holds them, unless it is far too large.
func (a *Arena) take(n int) []float32 {
	i, _ := slices.BinarySearchFunc(a.free, n, func(b []float32, n int) int { return cap(b) - n })
	if i < len(a.free) && cap(a.free[i]) <= 2*n+1024 {
		b := a.free[i]
		a.free = slices.Delete(a.free, i, i+1)
		return b[:n]
	}
	room := n
	if a.capacity < 2*a.rows { // not for the few rows of a generation's step
		room = n * a.capacity / a.rows
	}
	return make([]float32, n, room+1)
}

func (a *Arena) give(b []float32) {
	i, _ := slices.BinarySearchFunc(a.free, cap(b), func(f []float32, n int) int { return cap(f) - n })
	a.free = slices.Insert(a.free, i, b[:cap(b)])
}
