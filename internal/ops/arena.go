package ops

import (
	"slices"
	"unsafe"

	"ptune/internal/kernels"
)

// Arena is the memory of the values of a run: room that is cut into buffers, each at the lowest place that it fits, and put together
// again as buffers come back. A run takes and gives in the same order every time, so a second run of a size takes no new memory, and one
// of another size fits into the same room. What is never touched takes no memory: the room is one, and large, where the system lends so much.
type Arena struct {
	slabs []slab
	close func() // gives the room back; nil while there is none
}

// slab is one piece of memory and what of it is free, by place; neighbours are joined.
type slab struct {
	data []float32
	free []piece
	high int // the highest place that was ever out
}

type piece struct{ from, to int }

const (
	reserved   = 16 << 30 // 64 GiB of room
	slabFloats = 8 << 20  // 32 MiB, where the system lends no more than it has
	grain      = 16       // buffers begin at a multiple of 64 bytes
)

// touched is how many values' memory has been used.
func (a *Arena) touched() int {
	n := 0
	for _, s := range a.slabs {
		n += s.high
	}
	return n
}

// reset takes all buffers back, and forgets that they were used.
func (a *Arena) reset() {
	for i := range a.slabs {
		s := &a.slabs[i]
		s.free, s.high = append(s.free[:0], piece{0, len(s.data)}), 0
	}
}

// Close gives the memory back; no buffer may be read after it.
func (a *Arena) Close() {
	if a.close != nil {
		a.close()
	}
	*a = Arena{}
}

// grow adds a slab with room for need values.
func (a *Arena) grow(need int) {
	if len(a.slabs) == 0 && need <= reserved {
		if room, release := kernels.Reserve(a, reserved); room != nil {
			a.slabs, a.close = append(a.slabs, slab{data: room, free: []piece{{0, len(room)}}}), release
			return
		}
	}
	size := max(slabFloats, need)
	a.slabs = append(a.slabs, slab{data: kernels.Floats(size), free: []piece{{0, size}}})
}

// take returns a buffer of n values, of any content.
func (a *Arena) take(n int) []float32 {
	need := (max(n, 1) + grain - 1) / grain * grain
	for i := range a.slabs {
		s := &a.slabs[i]
		for k := range s.free {
			if f := &s.free[k]; f.to-f.from >= need {
				b := s.data[f.from : f.from+n : f.from+need]
				s.high = max(s.high, f.from+need)
				if f.from += need; f.from == f.to {
					s.free = slices.Delete(s.free, k, k+1)
				}
				return b
			}
		}
	}
	a.grow(need)
	return a.take(n)
}

// give takes back a buffer that take returned.
func (a *Arena) give(b []float32) {
	for i := range a.slabs {
		s := &a.slabs[i]
		at := int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))-uintptr(unsafe.Pointer(unsafe.SliceData(s.data)))) / 4
		if at < 0 || at >= len(s.data) {
			continue
		}
		k, _ := slices.BinarySearchFunc(s.free, at, func(f piece, at int) int { return f.from - at })
		s.free = slices.Insert(s.free, k, piece{at, at + cap(b)})
		if k+1 < len(s.free) && s.free[k].to == s.free[k+1].from {
			s.free[k].to = s.free[k+1].to
			s.free = slices.Delete(s.free, k+1, k+2)
		}
		if k > 0 && s.free[k-1].to == s.free[k].from {
			s.free[k-1].to = s.free[k].to
			s.free = slices.Delete(s.free, k, k+1)
		}
		return
	}
	panic("ops: a buffer came back that is not the arena's")
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
