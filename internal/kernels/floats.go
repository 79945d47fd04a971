package kernels

import "unsafe"

// hugePage is what the system's larger pages are: the values of a step fill hundreds of MB, and by pages of 4 KB each first
// touch is a fault and every row is another page.
const hugePage = 2 << 20

// Floats is memory for n values, all zero, on large pages where the system has them. What is not touched costs nothing.
func Floats(n int) []float32 {
	if n < hugePage/4 {
		return make([]float32, n)
	}
	b := make([]float32, n+hugePage/4) // with room to begin at a page
	if rest := uintptr(unsafe.Pointer(&b[0])) % hugePage; rest != 0 {
		b = b[(hugePage-rest)/4:]
	}
	adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), n*4/hugePage*hugePage))
	return b[:n]
}
