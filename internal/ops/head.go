package ops

import (
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// The loss computes logits for this many rows and vocabulary tokens at a time. They are 2 MB, and the
// head's weights for them are still in the cache when the backward pass reads them.
const (
	rowChunk   = 256
	vocabChunk = 2048
)

// Head makes logits from hidden states.
type Head struct {
	Linear         // Weight [V, D]
	Scale  float32 // factor of the logits; 0: 1
	Cap    float32 // then logits l become Cap tanh(l / Cap); 0: they stay
}

// logits writes the logits of the rows x to l. If slopes has rows, it writes there the derivative
// of each logit by its product.
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

// targetLogit is the logit of a row's target, and its slope as logits writes it.
type targetLogit struct{ logit, slope float32 }

// HeadLoss returns the layout's Scale times the summed cross-entropy of the target rows h [Tt, D]
// against the layout's targets. The gradient of h is computed together with the loss; the backward
// pass returns it.
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
				resize(&dh, x.Rows, x.Cols)
			}
			if cap(g.NLL) < x.Rows {
				g.NLL = make([]float32, x.Rows)
			}
			g.NLL, g.Margin = g.NLL[:x.Rows], g.Margin[:0]
			for from := 0; from < x.Rows; from += rowChunk {
				n := min(rowChunk, x.Rows-from)
				rows := kernels.View(x.Data[from*x.Cols:], n, x.Cols)
				var d Matrix
				if g.Layout.Scale != 0 {
					d = kernels.View(dh.Data[from*x.Cols:], n, x.Cols)
				}
				head.loss(g, g.NLL[from:from+n], d, rows, g.Layout.TargetIDs[from:from+n])
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

// loss writes −log p of each row's target to nll and, if d has rows, the gradient of x times the
// layout's Scale to d, else it appends to g.Margin. It reads the vocabulary once, with a running
// softmax: d sums e^l W over all tokens but the target, which is added last. So neither 1 − p nor the
// gradient loses digits where p is almost one.
func (h Head) loss(g *Graph, nll []float32, d, x Matrix, targets []int32) {
	softmax, target := make([]kernels.Softmax, x.Rows), make([]targetLogit, x.Rows)
	for i := range softmax {
		softmax[i] = kernels.NewSoftmax()
	}
	h.eachChunk(g, x, d.Rows > 0, func(from int, p Head, l, slopes Matrix) {
		for i, t := range targets {
			if at := int(t) - from; at >= 0 && at < l.Cols {
				target[i] = targetLogit{l.Row(i)[at], p.slope(slopes, i, at)}
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
		over := float64(target[i].logit) - float64(s.Max) // s.Max and s.Sum are of the other tokens
		if d.Rows == 0 {
			g.Margin = append(g.Margin, target[i].logit-s.Max)
		}
		if math.IsInf(over, 1) {
			over = math.NaN() // a logit overflowed: p = 1 would be wrong
		}
		z := s.Sum + math.Exp(over)
		if over < 0 {
			nll[i] = float32(math.Log(z) - over)
		} else {
			nll[i] = float32(math.Log1p(s.Sum * math.Exp(-over)))
		}
		softmax[i].Sum = z
		target[i].slope *= float32(-s.Sum / z) // p − 1
	}
	if d.Rows == 0 {
		return
	}
	g.Pool.Each(d.Rows, func(_, i int) {
		row, w, at := d.Row(i), h.Weight, int(targets[i])*h.Weight.Stride
		c := g.Layout.Scale / float32(softmax[i].Sum)
		for j := range row {
			row[j] = c*row[j] + g.Layout.Scale*target[i].slope*kernels.Float(w.Data, w.DType, at+j)
		}
	})
	if h.Grad != nil {
		h.train(g, x, targets, softmax, target)
	}
}

// train adds to the gradients of the head's weights, given each row's softmax.
func (h Head) train(
	g *Graph, x Matrix, targets []int32, softmax []kernels.Softmax, target []targetLogit,
) {
	h.eachChunk(g, x, true, func(from int, p Head, l, slopes Matrix) {
		g.Pool.Each(l.Rows, func(_, i int) {
			row, s := l.Row(i), softmax[i]
			for j, v := range row {
				row[j] = g.Layout.Scale * float32(math.Exp(float64(v-s.Max))/s.Sum)
			}
		})
		p.back(g, l, slopes)
		for i, t := range targets {
			if at := int(t) - from; at >= 0 && at < l.Cols {
				l.Row(i)[at] = g.Layout.Scale * target[i].slope
			}
		}
		p.Grad.add(g, l, x, p.Weight.InOut)
	})
}

// eachChunk calls do for each chunk of the vocabulary. from is its first token, p the part of the head
// that computes it, l the logits of x. slopes are the derivatives of l by the product; they are empty
// unless back is set and the head has a Scale or Cap.
func (h Head) eachChunk(g *Graph, x Matrix, back bool, do func(from int, p Head, l, slopes Matrix)) {
	v := h.Weight.Out
	buf := g.arena.take(x.Rows * min(vocabChunk, v))
	defer g.arena.give(buf)
	var sloped []float32
	if back && (h.Scale != 0 || h.Cap != 0) {
		sloped = g.arena.take(x.Rows * min(vocabChunk, v))
		defer g.arena.give(sloped)
	}
	for from := 0; from < v; from += vocabChunk {
		p := h
		p.Linear = h.outputs(from, min(vocabChunk, v-from))
		l := kernels.View(buf, x.Rows, p.Weight.Out)
		var slopes Matrix
		if sloped != nil {
			slopes = kernels.View(sloped, x.Rows, p.Weight.Out)
		}
		p.logits(g, l, x, slopes)
		do(from, p, l, slopes)
	}
}

// back turns the gradient of the logits into that of the product: it multiplies by the slopes, if
// there are any.
func (h Head) back(g *Graph, d, slopes Matrix) {
	g.Pool.Each(slopes.Rows, func(_, i int) {
		d := d.Row(i)
		for j, s := range slopes.Row(i) {
			d[j] *= s
		}
	})
}

// slope returns the slope of a logit, 1 if there are none.
func (h Head) slope(slopes Matrix, i, at int) float32 {
	if slopes.Rows == 0 {
		return 1
	}
	return slopes.Row(i)[at]
}

// HeadScores writes −log p of the tokens in the layout's Asked after each of the target rows h [Tt, D] to
// g.NLL, row after row. For one asked token it is HeadLoss's, to the bit.
func (g *Graph) HeadScores(h *G.Node, head Head) *G.Node {
	return g.apply(&operator{
		name: "scores", scalar: true,
		flops: func(_ Matrix, in []Matrix) float64 { return work(in[0].Rows, head.Linear) },
		run: func(_ Matrix, in []Matrix) {
			g.NLL = g.NLL[:0]
			for from := 0; from < in[0].Rows; from += rowChunk {
				n := min(rowChunk, in[0].Rows-from)
				head.scores(g, kernels.View(in[0].Data[from*in[0].Cols:], n, in[0].Cols),
					g.Layout.Asked[from:from+n])
			}
		},
	}, h)
}

// scores appends −log p of the tokens asked for after each row of x to g.NLL. As in loss, the running
// softmax is over the other tokens, so that no digits are lost where p is almost one.
func (h Head) scores(g *Graph, x Matrix, asked [][]int32) {
	softmax, logits := make([]kernels.Softmax, x.Rows), make([][]float32, x.Rows)
	for i, ids := range asked {
		softmax[i], logits[i] = kernels.NewSoftmax(), make([]float32, len(ids))
	}
	h.eachChunk(g, x, false, func(from int, _ Head, l, _ Matrix) {
		for i, ids := range asked {
			for k, id := range ids {
				if at := int(id) - from; at >= 0 && at < l.Cols {
					logits[i][k] = l.Row(i)[at]
					l.Row(i)[at] = -math.MaxFloat32
				}
			}
		}
		g.Pool.SoftmaxPart(softmax, l)
	})
	for i, s := range softmax {
		g.NLL = append(g.NLL, nll(s, logits[i])...)
	}
}

// nll returns −log p of each of the logits; s is the softmax of all other logits.
func nll(s kernels.Softmax, logits []float32) []float32 {
	// except returns the softmax of all logits but number skip.
	except := func(skip int) (most, sum float64) {
		most, sum = float64(s.Max), s.Sum
		for k, l := range logits {
			l := float64(l)
			switch {
			case k == skip:
			case l > most:
				most, sum = l, sum*math.Exp(most-l)+1
			default:
				sum += math.Exp(l - most)
			}
		}
		return most, sum
	}
	most, sum := except(-1)
	out := make([]float32, len(logits))
	for k, l := range logits {
		over := float64(l) - most
		if over < 0 { // another token is likelier
			out[k] = float32(math.Log(sum) - over)
			continue
		}
		m, others := except(k)
		if over = float64(l) - m; math.IsInf(over, 1) {
			over = math.NaN() // a logit overflowed: p = 1 would be wrong
		}
		out[k] = float32(math.Log1p(others * math.Exp(-over)))
	}
	return out
}

// Logits returns the logits [Tt, V] of the target rows h [Tt, D].
func (g *Graph) Logits(h *G.Node, head Head) *G.Node {
	return g.apply(&operator{
		name: "logits",
		size: func(in []Matrix) (int, int) { return in[0].Rows, head.Weight.Out },
		run:  func(out Matrix, in []Matrix) { head.logits(g, out, in[0], Matrix{}) },
	}, h)
}
