package kernels

import "math"

// Rotary is the table of a rotary position embedding (Su et al. 2021): Inv[i] is the angle a position adds to pair i.
type Rotary struct {
	Inv []float64 // half as many as a head has values
}

// NewRotary has the angles theta^(-2i/dim) of Llama's checkpoints.
func NewRotary(dim int, theta float64) Rotary {
	inv := make([]float64, dim/2)
	for i := range inv {
		inv[i] = math.Pow(theta, -2*float64(i)/float64(dim))
	}
	return Rotary{inv}
}

// Rotate turns, in place, the pairs (i, i+dim/2) of the first heads of each row by that row's position times Inv
// (transformers' rotate_half); back turns them the other way, which is the gradient.
func (p *Pool) Rotate(x Matrix, heads int, r Rotary, pos []int32, back bool) {
	half := len(r.Inv)
	p.rows(x.Rows, 60*half+6*heads*half, func(from, to int) {
		cos, sin := make([]float32, half), make([]float32, half)
		for i := from; i < to; i++ {
			for k, inv := range r.Inv {
				s, c := math.Sincos(float64(float32(float64(pos[i]) * inv)))
				if back {
					s = -s
				}
				cos[k], sin[k] = float32(c), float32(s)
			}
			row := x.Row(i)
			for h := range heads {
				a, b := row[2*h*half:(2*h+1)*half], row[(2*h+1)*half:(2*h+2)*half]
				for k, u := range a {
					v := b[k]
					a[k], b[k] = u*cos[k]-v*sin[k], v*cos[k]+u*sin[k]
				}
			}
		}
	})
}
