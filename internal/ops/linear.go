package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Linear is x Wᵀ + b.
type Linear struct {
	Weight kernels.Weight // [Out, In]
	Bias   []float32      // [Out]; nil: none
	LoRA   *LoRA          // its result is added; nil: none
	Grad   *Grad          // gradients of Weight and Bias are added to it; nil: they are frozen
}

// LoRA is Scale (x Aᵀ) Bᵀ beside a frozen matrix (Hu et al. 2021, arXiv 2106.09685), with the
// gradients of A and B.
type LoRA struct {
	A, B   kernels.Weight // [R, In] and [Out, R] of F32
	DA, DB Matrix
	Scale  float32
}

// Grad holds the gradients of a matrix, in the order it is stored, and of a bias.
type Grad struct {
	Weight Matrix
	Bias   []float32
}

// outputs returns the part of l that makes the outputs from <= o < from+n, without the LoRA.
func (l Linear) outputs(from, n int) Linear {
	p := Linear{Weight: l.Weight.OutRange(from, n)}
	if l.Bias != nil {
		p.Bias = l.Bias[from : from+n]
	}
	if l.Grad != nil {
		p.Grad = l.Grad.outputs(from, n, l.Weight.InOut)
	}
	return p
}

// outputs returns the gradients of the outputs from <= o < from+n.
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

// trains reports whether any part is trained and so needs its input in the backward pass.
func trains(parts ...Linear) bool {
	for _, l := range parts {
		if l.LoRA != nil || l.Grad != nil {
			return true
		}
	}
	return false
}

// forward writes x Wᵀ + b of each part to its out. The parts share the passes over x.
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
			h, buf := l.LoRA.inner(g, x)
			g.Pool.AddProduct(outs[i], h, l.LoRA.B)
			g.arena.give(buf)
		}
	}
}

// inner returns Scale x Aᵀ and the arena's buffer it lies in.
func (l *LoRA) inner(g *Graph, x Matrix) (Matrix, []float32) {
	buf := g.arena.take(x.Rows * l.A.Out)
	h := kernels.View(buf, x.Rows, l.A.Out)
	g.Pool.Product(h, x, l.A)
	g.scale(h, h, l.Scale)
	return h, buf
}

// backward writes the gradient of x to dx, or with add adds it, given d, the gradient of l's outputs. It
// also adds to the gradients of what l trains; x is read only for that.
func (g *Graph) backward(dx, d, x Matrix, l Linear, add bool) {
	g.Pool.ProductBack(dx, d, l.Weight, add)
	if l.Grad != nil {
		l.Grad.add(g, d, x, l.Weight.InOut)
	}
	if a := l.LoRA; a != nil {
		h, buf := a.inner(g, x)
		g.Pool.AddOuter(a.DB, d, h)
		g.Pool.ProductBack(h, d, a.B, false) // from here on h is the gradient of x Aᵀ
		g.scale(h, h, a.Scale)
		g.Pool.AddOuter(a.DA, h, x)
		g.Pool.ProductBack(dx, h, a.A, true)
		g.arena.give(buf)
	}
}

// add adds the gradients of a linear with inputs x and d, the gradient of its outputs.
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

// work returns the FLOPs of one pass over rows, forward or backward.
func work(rows int, parts ...Linear) float64 {
	n := 0.0
	for _, l := range parts {
		n += 2 * float64(rows) * float64(l.Weight.Out) * float64(l.Weight.In)
	}
	return n
}

// Linear returns [T, ΣOut]: the outputs of one or more linears of x [T, In], side by side. The
// backward pass dx = d W needs no activation. x is kept only if a part is trained.
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
