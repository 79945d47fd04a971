package ops

import (
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Norm is a frozen RMS norm, a layer norm if it has a Bias, and without a Weight what it is given.
type Norm struct {
	Name         string
	Weight, Bias []float32 // [D]
	Eps          float32
	Grad         *NormGrad // where their gradients are added up; nil: they are frozen
}

// NormGrad is the gradients of a norm's weight and bias.
type NormGrad struct{ Weight, Bias []float32 }

func (n Norm) forward(p *kernels.Pool, out, x Matrix) {
	switch {
	case n.Weight == nil:
		copyRows(out, x)
	case n.Bias != nil:
		p.LayerNorm(out, x, n.Weight, n.Bias, n.Eps)
	default:
		p.RMSNorm(out, x, n.Weight, n.Eps)
	}
}

// backward writes to dx, of as many rows as d, the gradient of x given d, that of forward's out.
func (n Norm) backward(p *kernels.Pool, dx, d, x Matrix) {
	if n.Grad != nil && n.Weight != nil {
		n.train(d, x)
	}
	switch {
	case n.Weight == nil:
		copyRows(dx, d)
	case n.Bias != nil:
		p.LayerNormBack(dx, d, x, n.Weight, n.Eps)
	default:
		p.RMSNormBack(dx, d, x, n.Weight, n.Eps)
	}
}

// train adds up the gradients of the weight, d x̂, and of the bias, d.
func (n Norm) train(d, x Matrix) {
	for i := range d.Rows {
		x, mean, square := x.Row(i), 0.0, 0.0
		if n.Bias != nil {
			for _, v := range x {
				mean += float64(v) / float64(len(x))
			}
			addRow(n.Grad.Bias, d.Row(i))
		}
		for _, v := range x {
			square += (float64(v) - mean) * (float64(v) - mean) / float64(len(x))
		}
		r := 1 / math.Sqrt(square+float64(n.Eps))
		for j, v := range d.Row(i) {
			n.Grad.Weight[j] += v * float32((float64(x[j])-mean)*r)
		}
	}
}

func copyRows(to, from Matrix) {
	for i := range to.Rows {
		copy(to.Row(i), from.Row(i))
	}
}

// Norm is the normed rows of x [T, D].
func (g *Graph) Norm(x *G.Node, n Norm) *G.Node {
	h, _ := g.norm(x, n, nil)
	return h
}

// Branch is the residual path around a block: it leaves the stream at x, where the block's norm reads it, and Join adds the
// block's result to it. Both readers of x share one gradient: the norm's way back adds what comes down the residual path.
type Branch struct {
	name    string
	x       *G.Node
	targets bool    // Join goes on with the target rows only
	dskip   *G.Node // the gradient of Join's result, known when the norm's way back is built
}

// Rows says which rows of a gradient are wanted.
type Rows int

// The way back of the first block ends at the soft prompts: below it, text rows are frozen embeddings.
const (
	AllRows Rows = iota
	PromptRows
)

func (g *Graph) count(r Rows, all int) int {
	if r == PromptRows {
		return g.Layout.Prompts
	}
	return all
}

// Fork opens a residual branch at x: the normed rows, and the branch that Join closes.
func (g *Graph) Fork(x *G.Node, n Norm) (*G.Node, *Branch) {
	return g.norm(x, n, &Branch{name: n.Name, x: x})
}

// Beside is where a second path leaves the stream beside a branch, for JoinBoth to close with it: its rows x [T, D], or with targets
// the target rows [Tt, D].
func (g *Graph) Beside(b *Branch, targets bool) *G.Node {
	if !targets {
		return b.x
	}
	return g.apply(&operator{
		name: b.name + " beside", diff: []bool{false}, // JoinBoth goes back along the path itself
		size: func(in []Matrix) (int, int) { return len(g.Layout.TargetRows), in[0].Cols },
		run: func(out Matrix, in []Matrix) {
			for i, r := range g.Layout.TargetRows {
				copy(out.Row(i), in[0].Row(int(r)))
			}
		},
	}, b.x)
}

func (g *Graph) norm(x *G.Node, n Norm, b *Branch) (*G.Node, *Branch) {
	return g.apply(&operator{
		name: n.Name, diff: []bool{true},
		size: asFirst,
		run:  func(out Matrix, in []Matrix) { n.forward(g.Pool, out, in[0]) },
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{in[0], dout}
			if b != nil {
				args = append(args, b.dskip)
			}
			return G.Nodes{g.apply(&operator{
				name: n.Name + "'", inPlace: 2,
				size: func(in []Matrix) (int, int) { return in[1].Rows, in[0].Cols },
				run: func(out Matrix, in []Matrix) {
					n.backward(g.Pool, out, in[1], in[0])
					if b == nil {
						return
					}
					if b.targets {
						for i, r := range g.Layout.TargetRows {
							addRow(out.Row(int(r)), in[2].Row(i))
						}
					} else {
						g.Pool.Add(out, out, in[2].Top(out.Rows))
					}
				},
			}, args...)}
		},
	}, x), b
}

// Join closes a branch: x + y [T, D], or with targets the target rows of x plus y [Tt, D].
func (g *Graph) Join(b *Branch, y *G.Node, targets bool) *G.Node {
	b.targets = targets
	return g.apply(&operator{
		name: b.name + "+", inPlace: 2, diff: []bool{false, true}, // the branch's norm carries x's gradient
		size: func(in []Matrix) (int, int) { return in[1].Rows, in[1].Cols },
		run: func(out Matrix, in []Matrix) {
			if !targets {
				g.Pool.Add(out, in[1], in[0])
				return
			}
			for i, r := range g.Layout.TargetRows {
				copy(out.Row(i), in[1].Row(i))
				addRow(out.Row(i), in[0].Row(int(r)))
			}
		},
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			b.dskip = dout
			return G.Nodes{nil, dout}
		},
	}, b.x, y)
}

// JoinBoth closes a branch and the path beside it that began at beside: Join of y, plus z.
func (g *Graph) JoinBoth(b *Branch, y, beside, z *G.Node, targets bool) *G.Node {
	sum := g.apply(&operator{
		name: b.name + " y+z", inPlace: 1, diff: []bool{true, false}, // the branch's norm carries z's gradient, too
		size: asFirst,
		run:  func(out Matrix, in []Matrix) { g.Pool.Add(out, in[0], in[1]) },
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			b.dskip = g.apply(&operator{
				name: b.name + " beside'",
				size: asFirst,
				run:  func(out Matrix, in []Matrix) { g.Pool.Add(out, in[0], in[1]) },
			}, dout, gradient(z, beside, dout))
			return G.Nodes{dout, nil}
		},
	}, y, z)
	return g.Join(b, sum, targets)
}

func addRow(to, x []float32) {
	for i, v := range x {
		to[i] += v
	}
}
