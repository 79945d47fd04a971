package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Embedding is what a token id becomes.
type Embedding struct {
	Tokens    kernels.Weight  // [V, D]: Out is V, In is D
	Positions *kernels.Weight // [positions, D] added at every row, soft prompts too; nil: none
	Offset    int             // position p is row p + Offset of Positions
	Scale     float32         // the embeddings of tokens are multiplied by it; 0: they are not
	All       float32         // all rows are, soft prompts too; 0: they are not
	Grad      *EmbeddingGrad  // where their gradients are added up; nil: they are frozen
}

// EmbeddingGrad is the gradients of the tables.
type EmbeddingGrad struct{ Tokens, Positions Matrix }

// train adds up the gradients, given d, that of all rows.
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

// Token is the embedding of a token, as it stands beside a soft prompt's rows.
func (e Embedding) Token(row []float32, id int) {
	kernels.ToFloats(row, e.Tokens.Data[id*e.Tokens.Stride*e.Tokens.DType.Size():], e.Tokens.DType)
	if e.Scale != 0 {
		for i := range row {
			row[i] *= e.Scale
		}
	}
}

// Embed is the hidden states [T, D] of the packed rows: the soft prompts' rows as they are, then the embeddings of the token
// ids. Its gradient is that of the soft prompts' rows; the table is frozen.
func (g *Graph) Embed(prompt *G.Node, e Embedding) *G.Node {
	return g.apply(&operator{
		name: "embed", diff: []bool{true},
		size: func([]Matrix) (int, int) { return len(g.Layout.IDs), e.Tokens.In },
		run: func(out Matrix, in []Matrix) {
			g.Pool.Each(out.Rows, func(_, i int) {
				row := out.Row(i)
				if i < g.Layout.Prompts {
					copy(row, in[0].Row(i))
				} else {
					e.Token(row, int(g.Layout.IDs[i]))
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
					if copyRows(out, in[0]); e.All != 0 {
						g.scale(out, out, e.All)
					}
				},
			}, dout)}
		},
	}, prompt)
}
