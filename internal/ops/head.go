package ops

import (
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Of the logits a part exists at a time: of so many rows, so many tokens of the vocabulary. They are a few MB, and what the part reads of
// the head's weights is still near when the way back wants it.
const (
	chunk = 256
	part  = 2048
)

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

// goal is what is known of a row's target: its logit, and what that one's gradient is multiplied by on its way back.
type goal struct{ logit, slope float32 }

// HeadLoss is Scale times the summed cross-entropy of the target rows h [Tt, D] against the layout's targets, through the
// head's [V, D] matrix. The gradient of h is made together with the loss, and the way back hands it on.
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
			x := in[0]
			if g.Layout.Scale != 0 {
				grown(&dh, x.Rows, x.Cols)
			}
			if cap(g.NLL) < x.Rows {
				g.NLL = make([]float32, x.Rows)
			}
			g.NLL = g.NLL[:x.Rows]
			for from := 0; from < x.Rows; from += chunk {
				n := min(chunk, x.Rows-from)
				var d Matrix
				if g.Layout.Scale != 0 {
					d = kernels.View(dh.Data[from*x.Cols:], n, x.Cols)
				}
				head.loss(g, g.NLL[from:from+n], d, kernels.View(x.Data[from*x.Cols:], n, x.Cols), g.Layout.TargetIDs[from:from+n])
			}
			var sum float64
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

// loss writes −log p of each row's target to nll and, if d has rows, its gradient times the layout's Scale to d. The vocabulary is gone
// through once, with a running softmax: d adds up Σ e^l W over all tokens but the target, which joins at the end. So where p is almost
// one, neither 1 − p nor the gradient loses digits.
func (h Head) loss(g *Graph, nll []float32, d, x Matrix, targets []int32) {
	softmax, goals := make([]kernels.Softmax, x.Rows), make([]goal, x.Rows)
	for i := range softmax {
		softmax[i] = kernels.NewSoftmax()
	}
	h.parts(g, x, d.Rows > 0, func(from int, p Head, l, slopes Matrix) {
		for i, t := range targets {
			if at := int(t) - from; at >= 0 && at < l.Cols {
				goals[i] = goal{l.Row(i)[at], p.slope(slopes, i, at)}
				l.Row(i)[at] = -math.MaxFloat32
			}
		}
		g.Pool.SoftmaxPart(softmax, l)
		if d.Rows == 0 {
			return
		}
		p.back(g, l, slopes)
		if from > 0 {
			g.Pool.Each(d.Rows, func(_, i int) {
				row := d.Row(i)
				for j := range row {
					row[j] *= softmax[i].Fade
				}
			})
		}
		g.Pool.ProductBack(d, l, p.Weight, from > 0)
	})

	for i, s := range softmax {
		above := float64(goals[i].logit) - float64(s.Max) // log of the target's e^l, of which s.Sum are the others'
		if math.IsInf(above, 1) {
			above = math.NaN() // an overflow is no certainty
		}
		z := s.Sum + math.Exp(above)
		if above < 0 {
			nll[i] = float32(math.Log(z) - above)
		} else {
			nll[i] = float32(math.Log1p(s.Sum * math.Exp(-above)))
		}
		softmax[i].Sum = z
		goals[i].slope *= float32(-s.Sum / z) // p − 1
	}
	if d.Rows == 0 {
		return
	}
	g.Pool.Each(d.Rows, func(_, i int) {
		row, w, c := d.Row(i), h.Weight, g.Layout.Scale/float32(softmax[i].Sum)
		for j := range row {
			row[j] = c*row[j] + g.Layout.Scale*goals[i].slope*kernels.Float(w.Data, w.DType, int(targets[i])*w.Stride+j)
		}
	})
	if h.Grad != nil {
		h.train(g, x, targets, softmax, goals)
	}
}

// train adds up the gradients of the head's weights, now that each row's softmax is known.
func (h Head) train(g *Graph, x Matrix, targets []int32, softmax []kernels.Softmax, goals []goal) {
	h.parts(g, x, true, func(from int, p Head, l, slopes Matrix) {
		g.Pool.Each(l.Rows, func(_, i int) {
			row, s := l.Row(i), softmax[i]
			for j, v := range row {
				row[j] = g.Layout.Scale * float32(math.Exp(float64(v-s.Max))/s.Sum)
			}
		})
		p.back(g, l, slopes)
		for i, t := range targets {
			if at := int(t) - from; at >= 0 && at < l.Cols {
				l.Row(i)[at] = g.Layout.Scale * goals[i].slope
			}
		}
		p.Grad.add(g, l, x, p.Weight.InOut)
	})
}

// parts calls do with each part of the vocabulary from a token on: the head that makes it, its logits of the rows x and, if asked for,
// what back wants of them.
func (h Head) parts(g *Graph, x Matrix, back bool, do func(from int, p Head, l, slopes Matrix)) {
	v := h.Weight.Out
	room := g.arena.take(x.Rows * min(part, v))
	defer g.arena.give(room)
	var sloped []float32
	if back && (h.Scale != 0 || h.Cap != 0) {
		sloped = g.arena.take(x.Rows * min(part, v))
		defer g.arena.give(sloped)
	}
	for from := 0; from < v; from += part {
		p := h
		p.Linear = h.Outputs(from, min(part, v-from))
		l := kernels.View(room, x.Rows, p.Weight.Out)
		var slopes Matrix
		if sloped != nil {
			slopes = kernels.View(sloped, x.Rows, p.Weight.Out)
		}
		p.logits(g, l, x, slopes)
		do(from, p, l, slopes)
	}
}

// back turns the gradient of logits into that of the product: it is multiplied by their slopes, where there are any.
func (h Head) back(g *Graph, d, slopes Matrix) {
	g.Pool.Each(slopes.Rows, func(_, i int) {
		d := d.Row(i)
		for j, s := range slopes.Row(i) {
			d[j] *= s
		}
	})
}

// slope is that of a logit.
func (h Head) slope(slopes Matrix, i, at int) float32 {
	if slopes.Rows == 0 {
		return 1
	}
	return slopes.Row(i)[at]
}

// Logits is the logits [Tt, V] of the target rows h [Tt, D].
func (g *Graph) Logits(h *G.Node, head Head) *G.Node {
	return g.apply(&operator{
		name: "logits",
		size: func(in []Matrix) (int, int) { return in[0].Rows, head.Weight.Out },
		run:  func(out Matrix, in []Matrix) { head.logits(g, out, in[0], Matrix{}) },
	}, h)
}
