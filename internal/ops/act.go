package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Gated returns act(gate) · up [T, I], given gate and up side by side [T, 2I].
func (g *Graph) Gated(gateUp *G.Node, act kernels.Activation, name string) *G.Node {
	return g.apply(&operator{
		name: name, diff: []bool{true},
		size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols / 2 },
		run: func(out Matrix, in []Matrix) {
			g.Pool.Gated(act, out, in[0].Columns(0, out.Cols), in[0].Columns(out.Cols, out.Cols))
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: name + "'", inPlace: 1,
				size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols },
				run: func(out Matrix, in []Matrix) {
					n := out.Cols / 2
					gate, up := in[0].Columns(0, n), in[0].Columns(n, n)
					g.Pool.GatedBack(act, out.Columns(0, n), out.Columns(n, n), in[1], gate, up)
				},
			}, in[0], dout)}
		},
	}, gateUp)
}

// Act returns act(x) [T, I].
func (g *Graph) Act(x *G.Node, act kernels.Activation, name string) *G.Node {
	return g.apply(&operator{
		name: name, diff: []bool{true}, size: asFirst,
		run: func(out Matrix, in []Matrix) { g.Pool.Act(act, out, in[0]) },
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: name + "'", inPlace: 1, size: asFirst,
				run: func(out Matrix, in []Matrix) { g.Pool.ActBack(act, out, in[1], in[0]) },
			}, in[0], dout)}
		},
	}, x)
}

// Scale returns c x.
func (g *Graph) Scale(x *G.Node, c float32, name string) *G.Node {
	return g.apply(&operator{
		name: name, inPlace: 1, diff: []bool{true}, size: asFirst,
		run:  func(out Matrix, in []Matrix) { g.scale(out, in[0], c) },
		back: func(_ G.Nodes, dout *G.Node) G.Nodes { return G.Nodes{g.Scale(dout, c, name+"'")} },
	}, x)
}

// scale writes c x to out.
func (g *Graph) scale(out, x Matrix, c float32) {
	g.Pool.Each(out.Rows, func(_, i int) {
		to := out.Row(i)
		for j, v := range x.Row(i) {
			to[j] = c * v
		}
	})
}

// asFirst returns the size of the first input.
func asFirst(in []Matrix) (rows, cols int) { return in[0].Rows, in[0].Cols }
