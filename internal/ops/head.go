package ops

import (
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// chunk is how many rows of logits exist at a time: enough that the head's weights are read seldom, and few enough that
// [chunk, V] stays a few MB.
const chunk = 48

// Head makes logits: a frozen product, and what some checkpoints do to its results.
type Head struct {
	Linear         // Weight [V, D]
	Scale  float32 // logits are multiplied by it; 0: they are not
	Cap    float32 // then logits l become Cap tanh(l / Cap); 0: they stay
}

// logits writes the logits of the rows x to l, and if slopes has rows what a logit's gradient is to be multiplied by on its way back.
func (h Head) logits(g *Graph, l, x, slopes Matrix) {
	g.forward([]Matrix{l}, x, []Linear{h.Linear})
	if h.Scale == 0 && h.Cap == 0 {
		return
	}
	g.Pool.Each(l.Rows, func(_, i int) {
		row, scale := l.Row(i), h.Scale
		if scale == 0 {
			scale = 1
		}
		for j, v := range row {
			v, slope := scale*v, scale
			if h.Cap != 0 {
				t := float32(math.Tanh(float64(v / h.Cap)))
				v, slope = h.Cap*t, scale*(1-t*t)
			}
			row[j] = v
			if slopes.Rows > 0 {
				slopes.Row(i)[j] = slope
			}
		}
	})
}

// HeadLoss is Scale times the summed cross-entropy of the target rows h [Tt, D] against the layout's targets, through the
// head's [V, D] matrix. Logits exist for a chunk of rows only: each chunk's gradient of h is made while its logits are
// there, and the way back hands it on.
func (g *Graph) HeadLoss(h *G.Node, head Head) *G.Node {
	var dh Matrix
	var loss *G.Node
	loss = g.apply(&operator{
		name: "loss", scalar: true, diff: []bool{true},
		flops: func(_ Matrix, in []Matrix) float64 {
			if g.Layout.Scale == 0 {
				return work(in[0].Rows, head.Linear)
			}
			return 2 * work(in[0].Rows, head.Linear)
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
			var slopes []float32
			if g.Layout.Scale != 0 && (head.Scale != 0 || head.Cap != 0) {
				slopes = g.arena.take(min(chunk, x.Rows) * v)
				defer g.arena.give(slopes)
			}
			var sum float64
			for from := 0; from < x.Rows; from += chunk {
				n := min(chunk, x.Rows-from)
				part := kernels.View(x.Data[from*x.Cols:], n, x.Cols)
				l := kernels.View(logits, n, v)
				var slope Matrix
				if slopes != nil {
					slope = kernels.View(slopes, n, v)
				}
				head.logits(g, l, part, slope)
				g.Pool.CrossEntropy(g.NLL[from:], l, g.Layout.TargetIDs[from:], g.Layout.Scale)
				if slopes != nil {
					g.Pool.Each(n, func(_, i int) {
						d := l.Row(i)
						for j, s := range slope.Row(i) {
							d[j] *= s
						}
					})
				}
				if g.Layout.Scale != 0 {
					g.backward(kernels.View(dh.Data[from*x.Cols:], n, x.Cols), l, part, head.Linear, false)
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
func (g *Graph) Logits(h *G.Node, head Head) *G.Node {
	return g.apply(&operator{
		name: "logits",
		size: func(in []Matrix) (int, int) { return in[0].Rows, head.Weight.Out },
		run:  func(out Matrix, in []Matrix) { head.logits(g, out, in[0], Matrix{}) },
	}, h)
}
