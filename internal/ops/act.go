package ops

import G "gorgonia.org/gorgonia"

// SwiGLU is silu(gate) up [T, I] of gate and up side by side [T, 2I].
func (g *Graph) SwiGLU(gateUp *G.Node, name string) *G.Node {
	return g.apply(&operator{
		name: name, diff: []bool{true},
		size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols / 2 },
		run: func(out Matrix, in []Matrix) {
			g.Pool.SwiGLU(out, in[0].Columns(0, out.Cols), in[0].Columns(out.Cols, out.Cols))
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: name + "'", inPlace: 1,
				size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols },
				run: func(out Matrix, in []Matrix) {
					n := out.Cols / 2
					g.Pool.SwiGLUBack(out.Columns(0, n), out.Columns(n, n), in[1], in[0].Columns(0, n), in[0].Columns(n, n))
				},
			}, in[0], dout)}
		},
	}, gateUp)
}

// GELU is gelu(x) in its tanh form [T, I].
func (g *Graph) GELU(x *G.Node, name string) *G.Node {
	same := func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols }
	return g.apply(&operator{
		name: name, diff: []bool{true}, size: same,
		run: func(out Matrix, in []Matrix) { g.Pool.GELU(out, in[0]) },
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: name + "'", inPlace: 1, size: same,
				run: func(out Matrix, in []Matrix) { g.Pool.GELUBack(out, in[1], in[0]) },
			}, in[0], dout)}
		},
	}, x)
}
