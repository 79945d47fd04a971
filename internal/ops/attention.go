package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Attention is the attention of one layer. Its queries, keys and values travel as one flat value: the queries [Tq, QCols],
// then the keys and values [Above+T, KVCols], so that every operator here has one gradient. Those above are the trunk's, and are there for
// attend alone.
type Attention struct {
	Name    string
	Layer   int // its place in the graph's cache
	Heads   kernels.Heads
	Q, K, V Linear
	Fused   *Fused          // instead of Q, K and V; nil: they are apart
	QNorm   *Norm           // of queries, over each head or over all, as long as its Weight is; nil: none
	KNorm   *Norm           // of keys
	Rotary  *kernels.Rotary // nil: positions are not rotary
	Targets bool            // only the target rows ask: the last layer
	Want    Rows            // which rows of the layer's input want a gradient
}

// Fused is one matrix that makes queries, keys and values in an order of its own.
type Fused struct {
	Linear
	Q, K, V []int // the column of its product where each head begins
}

// queries is the number of query rows.
func (a *Attention) queries(g *Graph) int {
	if a.Targets {
		return len(g.Layout.TargetRows)
	}
	return len(g.Layout.IDs)
}

// split views a flat value with queries for nq rows and keys and values for nk, and those above.
func (a *Attention) split(g *Graph, flat Matrix, nq, nk int) (q, kv Matrix) {
	q, kv = a.splitAll(g, flat, nq, nk)
	return q, kernels.View(kv.Data[g.Layout.Above*kv.Cols:], nk, kv.Cols)
}

// splitAll is split with the keys and values above before the others.
func (a *Attention) splitAll(g *Graph, flat Matrix, nq, nk int) (q, kv Matrix) {
	n := nq * a.Heads.QCols()
	return kernels.View(flat.Data[:n], nq, a.Heads.QCols()), kernels.View(flat.Data[n:], g.Layout.Above+nk, a.Heads.KVCols())
}

// forwardSize and backSize are the row counts of the flat value and of its gradient.
func (a *Attention) forwardSize(g *Graph) (nq, nk int) { return a.queries(g), len(g.Layout.IDs) }

func (a *Attention) backSize(g *Graph) (nq, nk int) {
	return g.count(a.Want, a.queries(g)), g.count(a.Want, len(g.Layout.IDs))
}

func (a *Attention) flat(rows func(*Graph) (nq, nk int), g *Graph) func([]Matrix) (int, int) {
	return func([]Matrix) (int, int) {
		nq, nk := rows(g)
		return 1, nq*a.Heads.QCols() + (g.Layout.Above+nk)*a.Heads.KVCols()
	}
}

// Attend is what the layer's query rows [Tq, QCols] gather from the rows they see, given the layer's normed input h [T, D].
func (g *Graph) Attend(h *G.Node, a *Attention) *G.Node {
	var qkv *G.Node
	if a.Fused != nil {
		qkv = g.projectFused(h, a)
	} else {
		qkv = g.project(h, a)
	}
	if a.QNorm != nil {
		qkv = g.normHeads(qkv, a)
	}
	if a.Rotary != nil {
		qkv = g.rotate(qkv, a, false)
	}
	return g.attend(g.attended(qkv), a)
}

// project is the flat queries, keys and values of h.
func (g *Graph) project(h *G.Node, a *Attention) *G.Node {
	half := a.Heads.KVCols() / 2
	var few, some Matrix // the target rows of h's gradient, and of h
	asking := func(x Matrix) Matrix {
		grown(&some, len(g.Layout.TargetRows), x.Cols)
		for i, r := range g.Layout.TargetRows {
			copy(some.Row(i), x.Row(int(r)))
		}
		return some
	}
	return g.apply(&operator{
		name: a.Name + ".qkv", diff: []bool{true},
		size: a.flat(a.forwardSize, g),
		flops: func(Matrix, []Matrix) float64 {
			nq, nk := a.forwardSize(g)
			return work(nq, a.Q) + work(nk, a.K, a.V)
		},
		run: func(out Matrix, in []Matrix) {
			x := in[0]
			nq, nk := a.forwardSize(g)
			q, kv := a.split(g, out, nq, nk)
			k, v := kv.Columns(0, half), kv.Columns(half, half)
			if !a.Targets {
				g.forward([]Matrix{q, k, v}, x, []Linear{a.Q, a.K, a.V})
				return
			}
			g.forward([]Matrix{q}, asking(x), []Linear{a.Q})
			g.forward([]Matrix{k, v}, x, []Linear{a.K, a.V})
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{dout}
			if trains(a.Q, a.K, a.V) {
				args = append(args, in[0])
			}
			return G.Nodes{g.apply(&operator{
				name: a.Name + ".qkv'",
				size: func([]Matrix) (int, int) { return g.count(a.Want, len(g.Layout.IDs)), a.Q.Weight.In },
				flops: func(Matrix, []Matrix) float64 {
					nq, nk := a.backSize(g)
					return work(nq, a.Q) + work(nk, a.K, a.V)
				},
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.backSize(g)
					dq, dkv := a.split(g, in[0], nq, nk)
					x := in[len(in)-1]
					g.backward(out, dkv.Columns(0, half), x, a.K, false)
					g.backward(out, dkv.Columns(half, half), x, a.V, true)
					if !a.Targets {
						g.backward(out, dq, x, a.Q, true)
						return
					}
					d := grown(&few, len(g.Layout.TargetRows), out.Cols)
					if trains(a.Q) {
						x = asking(x)
					}
					g.backward(d, dq, x, a.Q, false)
					for i, r := range g.Layout.TargetRows {
						addRow(out.Row(int(r)), d.Row(i))
					}
				},
			}, args...)}
		},
	}, h)
}

// projectFused is project with one matrix; the queries of rows that nobody asks for are made, and dropped.
func (g *Graph) projectFused(h *G.Node, a *Attention) *G.Node {
	dim, half, f := a.Heads.Dim, a.Heads.KVCols()/2, a.Fused
	// each calls do with every piece of row i of q or kv and the piece of the whole product it comes from.
	each := func(row []float32, from []float32, heads []int, at int, do func(piece, of []float32)) {
		for h, c := range heads {
			do(row[at+h*dim:at+(h+1)*dim], from[c:c+dim])
		}
	}
	asking := func(i int) int {
		if a.Targets {
			return int(g.Layout.TargetRows[i])
		}
		return i
	}
	return g.apply(&operator{
		name: a.Name + ".qkv", diff: []bool{true},
		size:  a.flat(a.forwardSize, g),
		flops: func(Matrix, []Matrix) float64 { return work(len(g.Layout.IDs), f.Linear) },
		run: func(out Matrix, in []Matrix) {
			nq, nk := a.forwardSize(g)
			q, kv := a.split(g, out, nq, nk)
			room := g.arena.take(nk * f.Weight.Out)
			defer g.arena.give(room)
			whole := kernels.View(room, nk, f.Weight.Out)
			g.forward([]Matrix{whole}, in[0], []Linear{f.Linear})
			take := func(piece, of []float32) { copy(piece, of) }
			g.Pool.Each(nk, func(_, i int) {
				each(kv.Row(i), whole.Row(i), f.K, 0, take)
				each(kv.Row(i), whole.Row(i), f.V, half, take)
			})
			g.Pool.Each(nq, func(_, i int) { each(q.Row(i), whole.Row(asking(i)), f.Q, 0, take) })
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{dout}
			if trains(f.Linear) {
				args = append(args, in[0])
			}
			return G.Nodes{g.apply(&operator{
				name:  a.Name + ".qkv'",
				size:  func([]Matrix) (int, int) { return g.count(a.Want, len(g.Layout.IDs)), f.Weight.In },
				flops: func(out Matrix, _ []Matrix) float64 { return work(out.Rows, f.Linear) },
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.backSize(g)
					dq, dkv := a.split(g, in[0], nq, nk)
					room := g.arena.take(nk * f.Weight.Out)
					defer g.arena.give(room)
					d := kernels.View(room, nk, f.Weight.Out)
					g.Pool.Each(nk, func(_, i int) {
						clear(d.Row(i))
						give := func(piece, of []float32) { copy(of, piece) }
						each(dkv.Row(i), d.Row(i), f.K, 0, give)
						each(dkv.Row(i), d.Row(i), f.V, half, give)
					})
					for i := range nq { // a row may ask more than once
						each(dq.Row(i), d.Row(asking(i)), f.Q, 0, func(piece, of []float32) { addRow(of, piece) })
					}
					g.backward(out, d, in[len(in)-1], f.Linear, false)
				},
			}, args...)}
		},
	}, h)
}

// normHeads is the flat value with its queries and keys normed.
func (g *Graph) normHeads(qkv *G.Node, a *Attention) *G.Node {
	half := a.Heads.KVCols() / 2
	// parts calls do with every run of columns that is normed by itself.
	parts := func(cols int, n *Norm, do func(from, width int, n *Norm)) {
		for c := 0; c < cols; c += len(n.Weight) {
			do(c, len(n.Weight), n)
		}
	}
	return g.apply(&operator{
		name: a.Name + ".norm", diff: []bool{true}, size: a.flat(a.forwardSize, g),
		run: func(out Matrix, in []Matrix) {
			nq, nk := a.forwardSize(g)
			q, kv := a.split(g, out, nq, nk)
			q0, kv0 := a.split(g, in[0], nq, nk)
			parts(q.Cols, a.QNorm, func(c, w int, n *Norm) { n.forward(g.Pool, q.Columns(c, w), q0.Columns(c, w)) })
			parts(half, a.KNorm, func(c, w int, n *Norm) { n.forward(g.Pool, kv.Columns(c, w), kv0.Columns(c, w)) })
			copyRows(kv.Columns(half, half), kv0.Columns(half, half))
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: a.Name + ".norm'", inPlace: 2, size: a.flat(a.backSize, g),
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.forwardSize(g)
					q0, kv0 := a.split(g, in[0], nq, nk)
					mq, mk := a.backSize(g)
					dq0, dkv0 := a.split(g, in[1], mq, mk)
					dq, dkv := a.split(g, out, mq, mk)
					parts(dq.Cols, a.QNorm, func(c, w int, n *Norm) {
						n.backward(g.Pool, dq.Columns(c, w), dq0.Columns(c, w), q0.Columns(c, w))
					})
					parts(half, a.KNorm, func(c, w int, n *Norm) {
						n.backward(g.Pool, dkv.Columns(c, w), dkv0.Columns(c, w), kv0.Columns(c, w))
					})
					copyRows(dkv.Columns(half, half), dkv0.Columns(half, half))
				},
			}, in[0], dout)}
		},
	}, qkv)
}

// rotate turns queries and keys by their positions; its way back turns the gradient the other way.
func (g *Graph) rotate(qkv *G.Node, a *Attention, back bool) *G.Node {
	rows, name := a.forwardSize, a.Name+".rope"
	if back {
		rows, name = a.backSize, name+"'"
	}
	return g.apply(&operator{
		name: name, inPlace: 1, diff: []bool{true},
		size: a.flat(rows, g),
		run: func(out Matrix, in []Matrix) {
			copy(out.Data, in[0].Data)
			nq, nk := rows(g)
			q, kv := a.split(g, out, nq, nk)
			pos := g.Layout.Pos
			if a.Targets {
				pos = make([]int32, nq)
				for i := range pos {
					pos[i] = g.Layout.Pos[g.Layout.TargetRows[i]]
				}
			}
			g.Pool.Rotate(q, a.Heads.Q, a.Heads.Dim, a.Rotary, pos, back)
			g.Pool.Rotate(kv, a.Heads.KV, a.Heads.Dim, a.Rotary, g.Layout.Pos, back)
		},
		back: func(_ G.Nodes, dout *G.Node) G.Nodes { return G.Nodes{g.rotate(dout, a, true)} },
	}, qkv)
}

// pairs is the multiplications of one product over all rows and what they see.
func (a *Attention) pairs(groups []kernels.Group) float64 {
	n := 0
	for _, g := range groups {
		n += g.Pairs()
	}
	return float64(n) * float64(a.Heads.QCols())
}

// attend is softmax(q kᵀ) v over the forest; the log of each softmax's denominator is kept for the way back.
func (g *Graph) attend(qkv *G.Node, a *Attention) *G.Node {
	var lse Matrix
	groups := func() []kernels.Group {
		if a.Targets {
			return g.Layout.TargetGroups
		}
		return g.Layout.Groups
	}
	return g.apply(&operator{
		name: a.Name + ".attend", diff: []bool{true},
		size:  func([]Matrix) (int, int) { return a.queries(g), a.Heads.QCols() },
		flops: func(Matrix, []Matrix) float64 { return 4 * a.pairs(groups()) },
		run: func(out Matrix, in []Matrix) {
			nq, nk := a.forwardSize(g)
			q, kv := a.splitAll(g, in[0], nq, nk)
			g.Trunk.forward(g, a.Layer, kv)
			grown(&lse, nq, a.Heads.Q)
			if g.Cache != nil {
				cache, half := g.Cache[a.Layer], a.Heads.KVCols()/2
				for h := range a.Heads.KV {
					key, of := h*a.Heads.Dim, cache.OfHead(h, a.Heads.KV)
					for i, r := range g.Layout.CacheRows {
						n := copy(of.Row(int(r)), kv.Row(i)[key:key+a.Heads.Dim])
						copy(of.Row(int(r))[n:], kv.Row(i)[half+key:half+key+a.Heads.Dim])
					}
				}
				kv = cache
			}
			g.Pool.Attend(out, lse, q, kv, a.Heads, groups())
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name:  a.Name + ".attend'",
				size:  a.flat(a.backSize, g),
				flops: func(Matrix, []Matrix) float64 { return 10 * a.pairs(groups()) },
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.forwardSize(g)
					q, kv := a.splitAll(g, in[0], nq, nk)
					mq, mk := a.backSize(g)
					dq, dkv := a.splitAll(g, out, mq, mk)
					g.Trunk.fill(g, a.Layer, kv)
					g.Pool.AttendBack(dq, dkv, in[1], lse, q, kv, a.Heads, groups())
					g.Trunk.backward(g, a.Layer, dkv)
				},
			}, in[0], dout)}
		},
	}, qkv)
}
