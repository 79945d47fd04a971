package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// chunk is how many rows of logits exist at a time: enough that the head's weights are read seldom, and few enough that
// [chunk, V] stays a few MB.
const chunk = 48

// HeadLoss is Scale times the summed cross-entropy of the target rows h [Tt, D] against the layout's targets, through the
// head's [V, D] matrix. Logits exist for a chunk of rows only: each chunk's gradient of h is made while its logits are
// there, and the way back hands it on.
func (g *Graph) HeadLoss(h *G.Node, head Linear) *G.Node {
	var dh Matrix
	var loss *G.Node
	loss = g.apply(&operator{
		name: "loss", scalar: true, diff: []bool{true},
		flops: func(_ Matrix, in []Matrix) float64 {
			if g.Layout.Scale == 0 {
				return work(in[0].Rows, head)
			}
			return 2 * work(in[0].Rows, head)
		},
		run: func(out Matrix, in []Matrix) {
			x, v := in[0], head.Weight.Out
			if g.Layout.Scale != 0 {
				grown(&dh, x.Rows, x.Cols)
			}
			if cap(g.NLL) < x.Rows {
				g.NLL = make([]float32, x.Rows)
			}
			g.NLL = g.NLL[:x.Rows]
			logits := g.arena.take(min(chunk, x.Rows) * v)
			defer g.arena.give(logits)
			var sum float64
			for from := 0; from < x.Rows; from += chunk {
				n := min(chunk, x.Rows-from)
				part := kernels.View(x.Data[from*x.Cols:], n, x.Cols)
				l := kernels.View(logits, n, v)
				forward(g.Pool, []Matrix{l}, part, []Linear{head})
				g.Pool.CrossEntropy(g.NLL[from:], l, g.Layout.TargetIDs[from:], g.Layout.Scale)
				if g.Layout.Scale != 0 {
					g.Pool.ProductBack(kernels.View(dh.Data[from*x.Cols:], n, x.Cols), l, head.Weight, false)
				}
			}
			for _, nll := range g.NLL {
				sum += float64(nll)
			}
			out.Data[0] = float32(sum * float64(g.Layout.Scale))
		},
		back: func(_ G.Nodes, _ *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: "loss'",
				size: func([]Matrix) (int, int) { return len(g.Layout.TargetRows), head.Weight.In },
				run:  func(out Matrix, _ []Matrix) { copy(out.Data, dh.Data) },
			}, loss)}
		},
	}, h)
	return loss
}

// Logits is the logits [Tt, V] of the target rows h [Tt, D].
func (g *Graph) Logits(h *G.Node, head Linear) *G.Node {
	return g.apply(&operator{
		name: "logits",
		size: func(in []Matrix) (int, int) { return in[0].Rows, head.Weight.Out },
		run:  func(out Matrix, in []Matrix) { forward(g.Pool, []Matrix{out}, in[0], []Linear{head}) },
	}, h)
}
