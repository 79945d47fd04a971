package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Norm is a frozen RMS norm, or a layer norm if it has a Bias.
type Norm struct {
	Name         string
	Weight, Bias []float32 // [D]
	Eps          float32
}

func (n Norm) forward(p *kernels.Pool, out, x Matrix) {
	if n.Bias != nil {
		p.LayerNorm(out, x, n.Weight, n.Bias, n.Eps)
	} else {
		p.RMSNorm(out, x, n.Weight, n.Eps)
	}
}

func (n Norm) backward(p *kernels.Pool, dx, d, x Matrix) {
	if n.Bias != nil {
		p.LayerNormBack(dx, d, x, n.Weight, n.Eps)
	} else {
		p.RMSNormBack(dx, d, x, n.Weight, n.Eps)
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
	rows    Rows
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
func (g *Graph) Fork(x *G.Node, n Norm, want Rows) (*G.Node, *Branch) {
	return g.norm(x, n, &Branch{name: n.Name, x: x, rows: want})
}

func (g *Graph) norm(x *G.Node, n Norm, b *Branch) (*G.Node, *Branch) {
	return g.apply(&operator{
		name: n.Name, diff: []bool{true},
		size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols },
		run:  func(out Matrix, in []Matrix) { n.forward(g.Pool, out, in[0]) },
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{in[0], dout}
			want := AllRows
			if b != nil {
				args, want = append(args, b.dskip), b.rows
			}
			return G.Nodes{g.apply(&operator{
				name: n.Name + "'", inPlace: 2,
				size: func(in []Matrix) (int, int) { return g.count(want, in[0].Rows), in[0].Cols },
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

func addRow(to, x []float32) {
	for i, v := range x {
		to[i] += v
	}
}
