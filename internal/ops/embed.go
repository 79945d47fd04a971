package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Embedding turns token ids into rows.
type Embedding struct {
	Tokens    kernels.Weight  // [V, D]: Out is V, In is D
	Positions *kernels.Weight // [positions, D], added to every row, soft prompts included; nil: none
	Offset    int             // position p is row p + Offset of Positions
	Scale     float32         // factor of token rows only; 0: 1
	All       float32         // factor of all rows, soft prompts included; 0: 1
	Grad      *EmbeddingGrad  // gradients of the tables are added to it; nil: they are frozen
}

// EmbeddingGrad holds the gradients of an embedding's tables.
type EmbeddingGrad struct{ Tokens, Positions Matrix }

// train adds to the tables' gradients, given d [T, D], the gradient of all rows.
func (e Embedding) train(l *Layout, d Matrix) {
	row := make([]float32, d.Cols)
	for i, id := range l.IDs {
		copy(row, d.Row(i))
		if p := e.Grad.Positions; p.Rows > 0 {
			addRow(p.Row(int(l.Pos[i])+e.Offset), row)
		}
		if i < l.Prompts {
			continue
		}
		for _, c := range []float32{e.All, e.Scale} {
			if c != 0 {
				for j := range row {
					row[j] *= c
				}
			}
		}
		addRow(e.Grad.Tokens.Row(int(id)), row)
	}
}

// token writes the scaled embedding of a token to row.
func (e Embedding) token(row []float32, id int) {
	kernels.ToFloats(row, e.Tokens.Data[e.Tokens.DType.Bytes(id*e.Tokens.Stride):], e.Tokens.DType)
	if e.Scale != 0 {
		for i := range row {
			row[i] *= e.Scale
		}
	}
}

// Embed returns the hidden states [T, D] of the packed rows: the soft prompts' rows, then the
// embeddings of the token ids. Its gradient is that of the soft prompts' rows [P, D].
func (g *Graph) Embed(prompt *G.Node, e Embedding) *G.Node {
	return g.apply(&operator{
		name: "embed", diff: []bool{true},
		size: func([]Matrix) (int, int) { return len(g.Layout.IDs), e.Tokens.In },
		run: func(out Matrix, in []Matrix) {
			g.Pool.Each(out.Rows, func(_, i int) {
				row := out.Row(i)
				if values := g.Layout.PromptValues; i < g.Layout.Prompts && values != nil {
					copy(row, values[i*len(row):])
				} else if i < g.Layout.Prompts {
					copy(row, in[0].Row(i))
				} else {
					e.token(row, int(g.Layout.IDs[i]))
				}
				if e.All != 0 {
					for j := range row {
						row[j] *= e.All
					}
				}
				if p := e.Positions; p != nil {
					at := (int(g.Layout.Pos[i]) + e.Offset) * p.Stride
					for j := range row {
						row[j] += kernels.Float(p.Data, p.DType, at+j)
					}
				}
			})
		},
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: "embed'", inPlace: 1,
				size: func(in []Matrix) (int, int) { return g.Layout.Prompts, in[0].Cols },
				run: func(out Matrix, in []Matrix) {
					if e.Grad != nil {
						e.train(g.Layout, in[0])
					}
					copyRows(out, in[0])
					if e.All != 0 {
						g.scale(out, out, e.All)
					}
				},
			}, dout)}
		},
	}, prompt)
}
