package kernels

import (
	"math"
	"slices"
)

// Rotary is a rotary position embedding (Su et al. 2021). Its table grows when a kernel needs more
// positions.
type Rotary struct {
	inv      []float64 // the angle that a position adds, for each pair of rotated values
	factor   float32   // multiplies rotated values
	cos, sin []float32 // [positions, len(inv)]
}

// NewRotary returns the embedding that rotates the first dim values of each head by Angles.
func NewRotary(dim int, theta float64) *Rotary { return NewRotaryOf(Angles(dim, theta), 1) }

// Angles returns the angles theta^(-2i/dim) of Llama's checkpoints. Scaled positions start from them.
func Angles(dim int, theta float64) []float64 {
	inv := make([]float64, dim/2)
	for i := range inv {
		inv[i] = math.Pow(theta, -2*float64(i)/float64(dim))
	}
	return inv
}

// NewRotaryOf returns the embedding that rotates by the angles given and multiplies the rotated values
// by factor.
func NewRotaryOf(inv []float64, factor float64) *Rotary {
	return &Rotary{inv: inv, factor: float32(factor)}
}

// reach grows the table to hold position pos. The angle is rounded to f32 before the cosine, as in
// transformers.
func (r *Rotary) reach(pos int32) {
	for p := len(r.cos) / len(r.inv); p <= int(pos); p++ {
		for _, inv := range r.inv {
			s, c := math.Sincos(float64(float32(float64(p) * inv)))
			r.cos = append(r.cos, r.factor*float32(c))
			r.sin = append(r.sin, r.factor*float32(s))
		}
	}
}

// Rotate rotates the first heads of each row of x in place, by the row's position pos. Of a head's dim
// values it rotates the first 2 n, n the embedding's number of angles, in pairs (i, i+n)
// (transformers' rotate_half). With back it rotates the other way, which is the gradient.
func (p *Pool) Rotate(x Matrix, heads, dim int, r *Rotary, pos []int32, back bool) {
	if x.Rows == 0 {
		return
	}
	r.reach(slices.Max(pos[:x.Rows]))
	half := len(r.inv)
	sign := float32(1)
	if back {
		sign = -1
	}
	p.rows(x.Rows, 2*heads*half, func(from, to int) {
		for i := from; i < to; i++ {
			at := int(pos[i]) * half
			p.set.rotate(x.Row(i)[:heads*dim], dim, r.cos[at:at+half], r.sin[at:at+half], sign)
		}
	})
}

// plainRotate rotates all heads in x.
func plainRotate(x []float32, dim int, cos, sin []float32, sign float32) {
	half := len(cos)
	for ; len(x) > 0; x = x[dim:] {
		a, b := x[:half], x[half:2*half]
		for k, u := range a {
			v, s := b[k], sign*sin[k]
			a[k], b[k] = u*cos[k]-v*s, v*cos[k]+u*s
		}
	}
}
