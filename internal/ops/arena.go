package ops

import (
	"slices"
	"unsafe"

	"ptune/internal/kernels"
)

// Arena is the memory for the values of a run. Each buffer takes the lowest free place where it
// fits, and free neighbours are joined as buffers come back. Runs take and give in the same order
// every time: a second run of the same size takes no new memory, and runs of other sizes share the
// same space. Where the system allows it, the arena is one large reservation of address space;
// pages that are never touched take no memory.
type Arena struct {
	slabs []slab
	close func() // gives the reservation back; nil while there is none
}

// slab is one piece of memory. free lists its free pieces by place, with no two adjacent.
type slab struct {
	data []float32
	free []piece
	high int // end of the highest buffer since forget
}

type piece struct{ from, to int }

const (
	reserved   = 16 << 30 // floats: 64 GiB of address space
	slabFloats = 8 << 20  // 32 MiB, where nothing can be reserved
	grain      = 16       // buffers begin at a multiple of 64 bytes, a cache line
)

// touched returns the number of floats whose memory has been used since forget.
func (a *Arena) touched() int {
	n := 0
	for _, s := range a.slabs {
		n += s.high
	}
	return n
}

// forget makes touched count from here.
func (a *Arena) forget() {
	for i := range a.slabs {
		a.slabs[i].high = 0
	}
}

// Close gives the memory back. No buffer may be read after it.
func (a *Arena) Close() {
	if a.close != nil {
		a.close()
	}
	*a = Arena{}
}

// grow adds a slab with space for need floats.
func (a *Arena) grow(need int) {
	if len(a.slabs) == 0 && need <= reserved {
		if data, release := kernels.Reserve(a, reserved); data != nil {
			a.slabs, a.close = append(a.slabs, slab{data: data, free: []piece{{0, len(data)}}}), release
			return
		}
	}
	size := max(slabFloats, need)
	a.slabs = append(a.slabs, slab{data: kernels.Floats(size), free: []piece{{0, size}}})
}

// take returns a buffer of n floats with undefined content.
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

func address(b []float32) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// give takes back a buffer that take returned.
func (a *Arena) give(b []float32) {
	for i := range a.slabs {
		s := &a.slabs[i]
		at := int(address(b)-address(s.data)) / 4
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
	panic("ops: buffer given back to an arena that it was not taken from")
}

// resize makes m a [rows, cols] matrix with undefined content, in its own memory if that is large
// enough. Operators use it for what they keep from their forward to their backward pass.
func resize(m *Matrix, rows, cols int) Matrix {
	if cap(m.Data) < rows*cols {
		m.Data = make([]float32, rows*cols)
	}
	*m = kernels.View(m.Data[:cap(m.Data)], rows, cols)
	return *m
}
