package kernels

import (
	"runtime"
	"unsafe"
)

// hugePage is what the system's larger pages are: the values of a step fill hundreds of MB, and by pages of 4 KB each first
// touch is a fault and every row is another page.
const hugePage = 2 << 20

// Floats is memory for n values, all zero, that begins at a multiple of 64 bytes, on large pages where the system has them and
// n is worth it. What is not touched costs nothing.
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

// Reserve is room for n values that takes no memory until it is touched, page by page; nil where the system does not lend so much. It is
// given back by release, or else when nobody knows owner any more.
func Reserve[T any](owner *T, n int) (room []float32, release func()) {
	room, unmap := reserve(n)
	if room == nil {
		return nil, nil
	}
	forgotten := runtime.AddCleanup(owner, func(unmap func()) { unmap() }, unmap)
	return room, func() { forgotten.Stop(); unmap() }
}

// grow makes b at least n values long, of any content, and returns the first n.
func grow(b *[]float32, n int) []float32 {
	if cap(*b) < n {
		*b = Floats(n)
	}
	return (*b)[:n]
}
