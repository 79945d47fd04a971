package kernels

import (
	"fmt"
	"math"
)

// Activation is the function between the two halves of an MLP.
type Activation int

// The activations, in the order of args.h.
const (
	SiLU     Activation = iota // x / (1 + e^-x)
	GELUTanh                   // x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
	GELU                       // x Φ(x), Φ the normal distribution
	ReLU                       // max(x, 0)
)

// ActivationNamed returns the activation with transformers' name for it.
func ActivationNamed(name string) (Activation, error) {
	switch name {
	case "silu", "swish":
		return SiLU, nil
	case "gelu_new", "gelu_pytorch_tanh", "gelu_fast": // three names of one function
		return GELUTanh, nil
	case "gelu":
		return GELU, nil
	case "relu":
		return ReLU, nil
	}
	return 0, fmt.Errorf("activation %q is not supported, "+
		"want silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast or relu", name)
}

// Gated writes act(gate) up to out, all [T, I].
func (p *Pool) Gated(act Activation, out, gate, up Matrix) {
	p.rows(out.Rows, 8*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.gated(act, gate.Row(i), up.Row(i), out.Row(i))
		}
	})
}

// GatedBack writes the gradients of gate and up, given d, the gradient of Gated's out. dgate and dup
// may be gate and up.
func (p *Pool) GatedBack(act Activation, dgate, dup, d, gate, up Matrix) {
	p.rows(d.Rows, 16*d.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.gatedBack(act, gate.Row(i), up.Row(i), d.Row(i), dgate.Row(i), dup.Row(i))
		}
	})
}

// Act writes act(x) to out.
func (p *Pool) Act(act Activation, out, x Matrix) {
	p.rows(out.Rows, 16*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.act(act, x.Row(i), out.Row(i))
		}
	})
}

// ActBack writes the gradient of x, given d, the gradient of Act's out. dx may be x or d.
func (p *Pool) ActBack(act Activation, dx, d, x Matrix) {
	p.rows(d.Rows, 24*d.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.actBack(act, x.Row(i), d.Row(i), dx.Row(i))
		}
	})
}

const sqrt2OverPi = 0.7978845608028654

// at returns the activation at x and its derivative there.
func (act Activation) at(x float32) (value, slope float32) {
	v := float64(x)
	var y, d float64
	switch act {
	case SiLU:
		s := 1 / (1 + math.Exp(-v))
		y, d = v*s, s*(1+v*(1-s))
	case GELUTanh:
		t := math.Tanh(sqrt2OverPi * (v + 0.044715*v*v*v))
		y, d = 0.5*v*(1+t), 0.5*(1+t)+0.5*v*(1-t*t)*sqrt2OverPi*(1+3*0.044715*v*v)
	case GELU:
		phi := 0.5 * math.Erfc(-v/math.Sqrt2)
		y, d = v*phi, phi+v*math.Exp(-0.5*v*v)/math.Sqrt(2*math.Pi)
	case ReLU:
		if v > 0 {
			y, d = v, 1
		}
	}
	return float32(y), float32(d)
}

func plainGated(act Activation, gate, up, out []float32) {
	for i, g := range gate {
		y, _ := act.at(g)
		out[i] = y * up[i]
	}
}

func plainGatedBack(act Activation, gate, up, d, dgate, dup []float32) {
	for i, g := range gate {
		y, slope := act.at(g)
		dgate[i], dup[i] = d[i]*up[i]*slope, d[i]*y
	}
}

func plainAct(act Activation, x, out []float32) {
	for i, v := range x {
		out[i], _ = act.at(v)
	}
}

func plainActBack(act Activation, x, d, dx []float32) {
	for i, v := range x {
		_, slope := act.at(v)
		dx[i] = d[i] * slope
	}
}

// Softmax is the state of a row's softmax that is computed part by part, in one pass (Milakov and
// Gimelshein 2018, algorithm 3).
type Softmax struct {
	Max  float32 // of the values so far
	Sum  float64 // of their e^(value − Max)
	Fade float32 // scales results of earlier parts, because Max has grown
}

// NewSoftmax returns the softmax of no values.
func NewSoftmax() Softmax { return Softmax{Max: -math.MaxFloat32} }

// SoftmaxPart adds the next part of each row's values to its softmax and replaces the values by
// e^(value − Max).
func (p *Pool) SoftmaxPart(rows []Softmax, part Matrix) {
	p.rows(part.Rows, 8*part.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			s := &rows[i]
			before := s.Max
			sum := p.set.softmaxPart(part.Row(i), &s.Max)
			fade := math.Exp(float64(before) - float64(s.Max))
			s.Sum, s.Fade = s.Sum*fade+sum, float32(fade)
		}
	})
}

// Add writes a + b to out; out may be a or b.
func (p *Pool) Add(out, a, b Matrix) {
	p.rows(out.Rows, out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.add(out.Row(i), a.Row(i), b.Row(i))
		}
	})
}

// AddRow adds the vector b to every row of x.
func (p *Pool) AddRow(x Matrix, b []float32) {
	p.rows(x.Rows, x.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.add(x.Row(i), x.Row(i), b)
		}
	})
}

func plainAdd(o, a, b []float32) {
	for i := range o {
		o[i] = a[i] + b[i]
	}
}
