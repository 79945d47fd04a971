package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Linear is a frozen x Wᵀ + b.
type Linear struct {
	Weight kernels.Weight // [Out, In]
	Bias   []float32      // [Out]; nil: none
}

// forward writes x Wᵀ + b to each part's out; the parts share the passes over x.
func forward(p *kernels.Pool, outs []Matrix, x Matrix, parts []Linear) {
	ws := make([]kernels.Weight, len(parts))
	for i, l := range parts {
		ws[i] = l.Weight
	}
	p.Products(outs, x, ws)
	for i, l := range parts {
		if l.Bias != nil {
			p.AddRow(outs[i], l.Bias)
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
// nothing is kept for the way back, which is dx = d W.
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
			forward(g.Pool, outs, in[0], parts)
		},
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name:  name + "'",
				size:  func(in []Matrix) (int, int) { return in[0].Rows, parts[0].Weight.In },
				flops: func(_ Matrix, in []Matrix) float64 { return work(in[0].Rows, parts...) },
				run: func(out Matrix, in []Matrix) {
					at := 0
					for i, l := range parts {
						g.Pool.ProductBack(out, in[0].Columns(at, l.Weight.Out), l.Weight, i > 0)
						at += l.Weight.Out
					}
				},
			}, dout)}
		},
	}, x)
}
