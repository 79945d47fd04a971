package kernels

import (
	"runtime"
	"unsafe"
)

// hugePage is the size of the system's large pages. The values of a step fill hundreds of MB: with
// pages of 4 KB, each first touch is a page fault and every row is on another page.
const hugePage = 2 << 20

// Floats returns n zeros that begin at a multiple of 64 bytes. From 2 MB on they are on large pages, if
// the system has them. Memory that is not touched costs nothing.
func Floats(n int) []float32 {
	align := 64
	if n >= hugePage/4 {
		align = hugePage
	}
	b := make([]float32, n+align/4)
	if rest := int(uintptr(unsafe.Pointer(&b[0])) % uintptr(align)); rest != 0 {
		b = b[(align-rest)/4:]
	}
	if align == hugePage {
		adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), n*4/hugePage*hugePage))
	}
	return b[:n]
}

// Reserve returns n values whose memory is taken only where it is touched, page by page; nil if
// the system refuses. release gives the memory back. Without it, that happens when owner is garbage.
func Reserve[T any](owner *T, n int) (values []float32, release func()) {
	values, unmap := reserve(n)
	if values == nil {
		return nil, nil
	}
	forgotten := runtime.AddCleanup(owner, func(unmap func()) { unmap() }, unmap)
	return values, func() { forgotten.Stop(); unmap() }
}

// grow makes b at least n values long and returns the first n, which may have any content.
func grow(b *[]float32, n int) []float32 {
	if cap(*b) < n {
		*b = Floats(n)
	}
	return (*b)[:n]
}
