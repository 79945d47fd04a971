package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Linear is x Wᵀ + b. It is frozen as a rule; comparisons train it, or a LoRA beside it.
type Linear struct {
	Weight kernels.Weight // [Out, In]
	Bias   []float32      // [Out]; nil: none
	LoRA   *LoRA          // added; nil: nothing
	Grad   *Grad          // where the gradients of Weight and Bias are added up; nil: they are frozen
}

// LoRA is Scale (x Aᵀ) Bᵀ beside a frozen matrix (Hu et al. 2021), with the gradients of A and B.
type LoRA struct {
	A, B   kernels.Weight // [R, In] and [Out, R] of F32
	DA, DB Matrix
	Scale  float32
}

// Grad is the gradients of a matrix, as it is stored, and of a bias.
type Grad struct {
	Weight Matrix
	Bias   []float32
}

// Outputs is the part of l that makes the outputs from <= o < from+n; a LoRA is left out.
func (l Linear) Outputs(from, n int) Linear {
	p := Linear{Weight: l.Weight.OutRange(from, n)}
	if l.Bias != nil {
		p.Bias = l.Bias[from : from+n]
	}
	if l.Grad != nil {
		p.Grad = l.Grad.outputs(from, n, l.Weight.InOut)
	}
	return p
}

// outputs is the gradients of some outputs.
func (gr *Grad) outputs(from, n int, inOut bool) *Grad {
	w := gr.Weight
	p := &Grad{Weight: w.Columns(from, n)}
	if !inOut {
		p.Weight = Matrix{Rows: n, Cols: w.Cols, Stride: w.Stride, Data: w.Data[from*w.Stride:]}
	}
	if gr.Bias != nil {
		p.Bias = gr.Bias[from : from+n]
	}
	return p
}

// trains tells whether a part keeps its input for the way back.
func trains(parts ...Linear) bool {
	for _, l := range parts {
		if l.LoRA != nil || l.Grad != nil {
			return true
		}
	}
	return false
}

// forward writes x Wᵀ + b to each part's out; the parts share the passes over x.
func (g *Graph) forward(outs []Matrix, x Matrix, parts []Linear) {
	ws := make([]kernels.Weight, len(parts))
	for i, l := range parts {
		ws[i] = l.Weight
	}
	g.Pool.Products(outs, x, ws)
	for i, l := range parts {
		if l.Bias != nil {
			g.Pool.AddRow(outs[i], l.Bias)
		}
		if l.LoRA != nil {
			h, room := l.LoRA.inner(g, x)
			g.Pool.AddProduct(outs[i], h, l.LoRA.B)
			g.arena.give(room)
		}
	}
}

// inner is Scale x Aᵀ, in a buffer of the arena.
func (l *LoRA) inner(g *Graph, x Matrix) (Matrix, []float32) {
	room := g.arena.take(x.Rows * l.A.Out)
	h := kernels.View(room, x.Rows, l.A.Out)
	g.Pool.Product(h, x, l.A)
	g.scale(h, h, l.Scale)
	return h, room
}

// backward writes, or with add adds, the gradient of x to dx, given d, that of l's outputs; what l trains gets its gradients of x, which
// is not read otherwise.
func (g *Graph) backward(dx, d, x Matrix, l Linear, add bool) {
	g.Pool.ProductBack(dx, d, l.Weight, add)
	if l.Grad != nil {
		l.Grad.add(g, d, x, l.Weight.InOut)
	}
	if a := l.LoRA; a != nil {
		h, room := a.inner(g, x)
		g.Pool.AddOuter(a.DB, d, h)
		g.Pool.ProductBack(h, d, a.B, false) // h is the gradient of x Aᵀ from here on
		g.scale(h, h, a.Scale)
		g.Pool.AddOuter(a.DA, h, x)
		g.Pool.ProductBack(dx, h, a.A, true)
		g.arena.give(room)
	}
}

// add adds the gradients of a matrix with inputs x and outputs' gradient d.
func (gr *Grad) add(g *Graph, d, x Matrix, inOut bool) {
	if inOut {
		g.Pool.AddOuter(gr.Weight, x, d)
	} else {
		g.Pool.AddOuter(gr.Weight, d, x)
	}
	if gr.Bias != nil {
		for i := range d.Rows {
			addRow(gr.Bias, d.Row(i))
		}
	}
}

// work is the FLOPs of so many rows, either way.
func work(rows int, parts ...Linear) float64 {
	n := 0.0
	for _, l := range parts {
		n += 2 * float64(rows) * float64(l.Weight.Out) * float64(l.Weight.In)
	}
	return n
}

// Linear is x [T, In] times one frozen matrix or, side by side, several: [T, ΣOut]. Being frozen they have no gradient, so
// nothing is kept for the way back, which is dx = d W; only what trains keeps x.
func (g *Graph) Linear(x *G.Node, parts ...Linear) *G.Node {
	cols := 0
	for _, l := range parts {
		cols += l.Weight.Out
	}
	name := parts[0].Weight.Name
	return g.apply(&operator{
		name: name, diff: []bool{true},
		size:  func(in []Matrix) (int, int) { return in[0].Rows, cols },
		flops: func(_ Matrix, in []Matrix) float64 { return work(in[0].Rows, parts...) },
		run: func(out Matrix, in []Matrix) {
			outs, at := make([]Matrix, len(parts)), 0
			for i, l := range parts {
				outs[i] = out.Columns(at, l.Weight.Out)
				at += l.Weight.Out
			}
			g.forward(outs, in[0], parts)
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{dout}
			if trains(parts...) {
				args = append(args, in[0])
			}
			return G.Nodes{g.apply(&operator{
				name:  name + "'",
				size:  func(in []Matrix) (int, int) { return in[0].Rows, parts[0].Weight.In },
				flops: func(_ Matrix, in []Matrix) float64 { return work(in[0].Rows, parts...) },
				run: func(out Matrix, in []Matrix) {
					at := 0
					for i, l := range parts {
						g.backward(out, in[0].Columns(at, l.Weight.Out), in[len(in)-1], l, i > 0)
						at += l.Weight.Out
					}
				},
			}, args...)}
		},
	}, x)
}
