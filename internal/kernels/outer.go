package kernels

import "unsafe"

// AddOuter adds to out [I, J] the sum over rows of the products of a's and b's values, aᵀ b: the gradient of a matrix, given its
// inputs and that of its outputs. a is [T, I], b [T, J].
func (p *Pool) AddOuter(out, a, b Matrix) {
	if a.Rows == 0 {
		return
	}
	turned := NewMatrix(a.Cols, a.Rows)
	p.rows(a.Cols, a.Rows, func(from, to int) {
		for t := range a.Rows {
			for i, v := range a.Row(t)[from:to] {
				turned.Row(from + i)[t] = v
			}
		}
	})
	w := Weight{Name: "aᵀ b", Data: FloatBytes(b.Data), Out: b.Cols, In: b.Rows, Stride: b.Stride, InOut: true}
	p.product([]Matrix{out}, turned, []Weight{w}, true, true)
}

// AddProduct adds x Wᵀ to out: Product's, in place of what was there.
func (p *Pool) AddProduct(out, x Matrix, w Weight) {
	p.product([]Matrix{out}, x, []Weight{w}, w.InOut, true)
}

// FloatBytes is x as a weight's data.
func FloatBytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
