package ops

import (
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Norm is an RMS norm, with a Bias a layer norm, and without a Weight the identity.
type Norm struct {
	Name         string    // of the node, unique in the graph
	Weight, Bias []float32 // [D]
	Eps          float32
	Grad         *NormGrad // gradients of Weight and Bias are added to it; nil: they are frozen
}

// NormGrad holds the gradients of a norm's weight and bias.
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

// backward writes the gradient of x to dx, given d, the gradient of forward's out. Only the first
// rows of x are differentiated if d has fewer.
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

// train adds to the gradients of the weight, Σ d x̂, and of the bias, Σ d, over the rows.
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

// Norm returns the normed rows of x [T, D].
func (g *Graph) Norm(x *G.Node, n Norm) *G.Node {
	h, _ := g.norm(x, n, nil)
	return h
}

// Branch is the residual path around a block: from x, which the block's norm also reads, to Join,
// which adds the block's result. x gets one gradient: the norm's backward pass adds that of the
// residual path.
type Branch struct {
	name     string
	x        *G.Node
	targets  bool    // Join continues with the target rows only
	skipGrad *G.Node // gradient of Join's result; set before the norm's backward pass is built
}

// Rows selects the rows of a gradient that are computed.
type Rows int

// The first block needs only the gradients of the soft prompts: below it, text rows are frozen
// embeddings.
const (
	AllRows Rows = iota
	PromptRows
)

// count returns how many rows r selects, of all.
func (g *Graph) count(r Rows, all int) int {
	if r == PromptRows {
		return g.Layout.Prompts
	}
	return all
}

// Fork begins a residual branch at x [T, D]. It returns the normed rows, and the branch for Join.
func (g *Graph) Fork(x *G.Node, n Norm) (*G.Node, *Branch) {
	return g.norm(x, n, &Branch{name: n.Name, x: x})
}

// SecondPath returns the rows at which a second path begins beside a branch: x [T, D], or with
// targets the target rows [Tt, D]. JoinBoth ends both.
func (g *Graph) SecondPath(b *Branch, targets bool) *G.Node {
	if !targets {
		return b.x
	}
	return g.apply(&operator{
		name: b.name + " second path", diff: []bool{false}, // JoinBoth builds this path's backward pass
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
				args = append(args, b.skipGrad)
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

// Join ends a branch: it returns x + y [T, D], or with targets the target rows of x plus y [Tt, D].
func (g *Graph) Join(b *Branch, y *G.Node, targets bool) *G.Node {
	b.targets = targets
	return g.apply(&operator{
		name: b.name + "+", inPlace: 2, diff: []bool{false, true}, // the branch's norm adds x's gradient
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
			b.skipGrad = dout
			return G.Nodes{nil, dout}
		},
	}, b.x, y)
}

// JoinBoth ends a branch with result y and the second path from second to z: it returns x + y + z.
func (g *Graph) JoinBoth(b *Branch, y, second, z *G.Node, targets bool) *G.Node {
	sum := g.apply(&operator{
		name: b.name + " y+z", inPlace: 1,
		diff: []bool{true, false}, // the branch's norm adds the gradient of the second path too
		size: asFirst,
		run:  func(out Matrix, in []Matrix) { g.Pool.Add(out, in[0], in[1]) },
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			b.skipGrad = g.apply(&operator{
				name: b.name + " second path'",
				size: asFirst,
				run:  func(out Matrix, in []Matrix) { g.Pool.Add(out, in[0], in[1]) },
			}, dout, gradient(z, second, dout))
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
