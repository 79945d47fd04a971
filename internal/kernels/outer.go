package kernels

import "unsafe"

// AddOuter adds aᵀ b to out [I, J]: the gradient of a matrix, given its inputs and the gradient of its
// outputs. a is [T, I], b [T, J].
func (p *Pool) AddOuter(out, a, b Matrix) {
	if a.Rows == 0 {
		return
	}
	transposed := NewMatrix(a.Cols, a.Rows)
	p.rows(a.Cols, a.Rows, func(from, to int) {
		for t := range a.Rows {
			for i, v := range a.Row(t)[from:to] {
				transposed.Row(from + i)[t] = v
			}
		}
	})
	w := Weight{Name: "aᵀ b", Data: FloatBytes(b.Data), Out: b.Cols, In: b.Rows, Stride: b.Stride,
		InOut: true}
	p.product([]Matrix{out}, transposed, []Weight{w}, true, true)
}

// AddProduct adds x Wᵀ to out; shapes are those of Product.
func (p *Pool) AddProduct(out, x Matrix, w Weight) {
	p.product([]Matrix{out}, x, []Weight{w}, w.InOut, true)
}

// FloatBytes returns x as the data of an F32 weight, in the same memory.
func FloatBytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
