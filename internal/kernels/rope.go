package kernels

import (
	"math"
	"slices"
)

// Rotary is a rotary position embedding (Su et al. 2021). Its table of angles grows with the positions that are asked for.
type Rotary struct {
	inv      []float64 // the angle a position adds to each pair; half as many as it turns values of a head
	factor   float32   // what turned values are multiplied by
	cos, sin []float32 // [positions, len(inv)]
}

// NewRotary turns by Angles the first dim values of each head.
func NewRotary(dim int, theta float64) *Rotary { return NewRotaryOf(Angles(dim, theta), 1) }

// Angles are the angles theta^(-2i/dim) of Llama's checkpoints, which scaled positions begin from.
func Angles(dim int, theta float64) []float64 {
	inv := make([]float64, dim/2)
	for i := range inv {
		inv[i] = math.Pow(theta, -2*float64(i)/float64(dim))
	}
	return inv
}

// NewRotaryOf turns by the angles given, and multiplies what it turns by factor.
func NewRotaryOf(inv []float64, factor float64) *Rotary {
	return &Rotary{inv: inv, factor: float32(factor)}
}

// reach grows the table to hold position pos. transformers rounds the angle to f32 before it takes the cosine.
func (r *Rotary) reach(pos int32) {
	for p := len(r.cos) / len(r.inv); p <= int(pos); p++ {
		for _, inv := range r.inv {
			s, c := math.Sincos(float64(float32(float64(p) * inv)))
			r.cos, r.sin = append(r.cos, r.factor*float32(c)), append(r.sin, r.factor*float32(s))
		}
	}
}

// Rotate turns, in place, the pairs (i, i+r/2) of each of the first heads of each row, r being as many values as the embedding
// turns of a head's dim, by that row's position times its angle (transformers' rotate_half); back turns them the other way, which is
// the gradient.
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

// plainRotate turns the heads that lie in x.
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
