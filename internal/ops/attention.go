package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Attention is the attention of one layer.
//
// Its queries, keys and values are one flat value, so that every operator here has one gradient: the
// queries [Tq, QCols], then the keys and values [TrunkRows+T, KVCols]. Only attend reads the trunk's.
type Attention struct {
	Name    string
	Layer   int // index into the graph's cache and trunk
	Heads   kernels.Heads
	Q, K, V Linear
	Fused   *Fused // instead of Q, K and V; nil: they are separate
	// QNorm and KNorm are norms of the queries and keys: of each head if the Weight is as long as a
	// head, else of the whole row. nil: none.
	QNorm, KNorm *Norm
	Rotary       *kernels.Rotary // nil: no rotary positions
	Targets      bool            // only the target rows are queries: the last layer
	GradRows     Rows            // rows of the layer's input whose gradient is computed
}

// Fused is one linear that makes queries, keys and values in an order of its own.
type Fused struct {
	Linear
	Q, K, V []int // the output at which each head begins
}

// queries returns the number of query rows, Tq.
func (a *Attention) queries(g *Graph) int {
	if a.Targets {
		return len(g.Layout.TargetRows)
	}
	return len(g.Layout.IDs)
}

// split returns the queries [nq, QCols] and the batch's own keys and values [nk, KVCols] in a flat
// value.
func (a *Attention) split(g *Graph, flat Matrix, nq, nk int) (q, kv Matrix) {
	q, kv = a.splitAll(g, flat, nq, nk)
	return q, kernels.View(kv.Data[g.Layout.TrunkRows*kv.Cols:], nk, kv.Cols)
}

// splitAll is split with the trunk's keys and values before the batch's own.
func (a *Attention) splitAll(g *Graph, flat Matrix, nq, nk int) (q, kv Matrix) {
	n := nq * a.Heads.QCols()
	q = kernels.View(flat.Data[:n], nq, a.Heads.QCols())
	return q, kernels.View(flat.Data[n:], g.Layout.TrunkRows+nk, a.Heads.KVCols())
}

// forwardSize returns the rows of queries and of keys in the flat value.
func (a *Attention) forwardSize(g *Graph) (nq, nk int) { return a.queries(g), len(g.Layout.IDs) }

// backSize returns the rows of queries and of keys in the flat value's gradient.
func (a *Attention) backSize(g *Graph) (nq, nk int) {
	return g.count(a.GradRows, a.queries(g)), g.count(a.GradRows, len(g.Layout.IDs))
}

// flat returns the size of a flat value of that many rows.
func (a *Attention) flat(rows func(*Graph) (nq, nk int), g *Graph) func([]Matrix) (int, int) {
	return func([]Matrix) (int, int) {
		nq, nk := rows(g)
		return 1, nq*a.Heads.QCols() + (g.Layout.TrunkRows+nk)*a.Heads.KVCols()
	}
}

// Attend returns the attention's result [Tq, QCols] for the layer's normed input h [T, D], before
// the output projection.
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
	return g.attend(g.attentionInput(qkv), a)
}

// project returns the flat queries, keys and values of h.
func (g *Graph) project(h *G.Node, a *Attention) *G.Node {
	half := a.Heads.KVCols() / 2
	var targets, targetGrads Matrix // target rows of h and of its gradient
	targetRows := func(x Matrix) Matrix {
		resize(&targets, len(g.Layout.TargetRows), x.Cols)
		for i, r := range g.Layout.TargetRows {
			copy(targets.Row(i), x.Row(int(r)))
		}
		return targets
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
			g.forward([]Matrix{q}, targetRows(x), []Linear{a.Q})
			g.forward([]Matrix{k, v}, x, []Linear{a.K, a.V})
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{dout}
			if trains(a.Q, a.K, a.V) {
				args = append(args, in[0])
			}
			return G.Nodes{g.apply(&operator{
				name: a.Name + ".qkv'",
				size: func([]Matrix) (int, int) {
					return g.count(a.GradRows, len(g.Layout.IDs)), a.Q.Weight.In
				},
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
					d := resize(&targetGrads, len(g.Layout.TargetRows), out.Cols)
					if trains(a.Q) {
						x = targetRows(x)
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

// projectFused is project for a fused linear. It computes the queries of all rows, also where only the
// target rows are queries.
func (g *Graph) projectFused(h *G.Node, a *Attention) *G.Node {
	dim, half, f := a.Heads.Dim, a.Heads.KVCols()/2, a.Fused
	// eachHead calls do with each head of a row of q or kv, whose heads begin at column at, and with the
	// values of that head in the fused row.
	eachHead := func(row, fused []float32, heads []int, at int, do func(head, inFused []float32)) {
		for h, c := range heads {
			do(row[at+h*dim:at+(h+1)*dim], fused[c:c+dim])
		}
	}
	queryRow := func(i int) int {
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
			buf := g.arena.take(nk * f.Weight.Out)
			defer g.arena.give(buf)
			fused := kernels.View(buf, nk, f.Weight.Out)
			g.forward([]Matrix{fused}, in[0], []Linear{f.Linear})
			read := func(head, inFused []float32) { copy(head, inFused) }
			g.Pool.Each(nk, func(_, i int) {
				eachHead(kv.Row(i), fused.Row(i), f.K, 0, read)
				eachHead(kv.Row(i), fused.Row(i), f.V, half, read)
			})
			g.Pool.Each(nq, func(_, i int) { eachHead(q.Row(i), fused.Row(queryRow(i)), f.Q, 0, read) })
		},
		back: func(in G.Nodes, dout *G.Node) G.Nodes {
			args := []*G.Node{dout}
			if trains(f.Linear) {
				args = append(args, in[0])
			}
			return G.Nodes{g.apply(&operator{
				name: a.Name + ".qkv'",
				size: func([]Matrix) (int, int) {
					return g.count(a.GradRows, len(g.Layout.IDs)), f.Weight.In
				},
				flops: func(out Matrix, _ []Matrix) float64 { return work(out.Rows, f.Linear) },
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.backSize(g)
					dq, dkv := a.split(g, in[0], nq, nk)
					buf := g.arena.take(nk * f.Weight.Out)
					defer g.arena.give(buf)
					d := kernels.View(buf, nk, f.Weight.Out)
					g.Pool.Each(nk, func(_, i int) {
						clear(d.Row(i))
						write := func(head, inFused []float32) { copy(inFused, head) }
						eachHead(dkv.Row(i), d.Row(i), f.K, 0, write)
						eachHead(dkv.Row(i), d.Row(i), f.V, half, write)
					})
					add := func(head, inFused []float32) { addRow(inFused, head) }
					for i := range nq { // one after the other: a row can be a target more than once
						eachHead(dq.Row(i), d.Row(queryRow(i)), f.Q, 0, add)
					}
					g.backward(out, d, in[len(in)-1], f.Linear, false)
				},
			}, args...)}
		},
	}, h)
}

// normHeads returns the flat value with its queries and keys normed.
func (g *Graph) normHeads(qkv *G.Node, a *Attention) *G.Node {
	half := a.Heads.KVCols() / 2
	forward := func(n *Norm, out, x Matrix, cols int) {
		for c, w := 0, len(n.Weight); c < cols; c += w {
			n.forward(g.Pool, out.Columns(c, w), x.Columns(c, w))
		}
	}
	backward := func(n *Norm, dx, d, x Matrix, cols int) {
		for c, w := 0, len(n.Weight); c < cols; c += w {
			n.backward(g.Pool, dx.Columns(c, w), d.Columns(c, w), x.Columns(c, w))
		}
	}
	return g.apply(&operator{
		name: a.Name + ".norm", diff: []bool{true}, size: a.flat(a.forwardSize, g),
		run: func(out Matrix, in []Matrix) {
			nq, nk := a.forwardSize(g)
			q, kv := a.split(g, out, nq, nk)
			q0, kv0 := a.split(g, in[0], nq, nk)
			forward(a.QNorm, q, q0, q.Cols)
			forward(a.KNorm, kv, kv0, half)
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
					backward(a.QNorm, dq, dq0, q0, dq.Cols)
					backward(a.KNorm, dkv, dkv0, kv0, half)
					copyRows(dkv.Columns(half, half), dkv0.Columns(half, half))
				},
			}, in[0], dout)}
		},
	}, qkv)
}

// rotate returns the flat value with queries and keys rotated by their positions. Its backward pass
// rotates the gradient the other way.
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

// pairs returns the multiplications of one product over all queries and the keys they see.
func (a *Attention) pairs(groups []kernels.Group) float64 {
	n := 0
	for _, g := range groups {
		n += g.Pairs()
	}
	return float64(n) * float64(a.Heads.QCols())
}

// attend returns softmax(q kᵀ) v over the forest. It keeps the log of each softmax's denominator for the
// backward pass.
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
			resize(&lse, nq, a.Heads.Q)
			if g.Cache != nil {
				cache, half := g.Cache[a.Layer], a.Heads.KVCols()/2
				for h := range a.Heads.KV {
					from, to := h*a.Heads.Dim, cache.OfHead(h, a.Heads.KV)
					for i, r := range g.Layout.CacheRows {
						n := copy(to.Row(int(r)), kv.Row(i)[from:from+a.Heads.Dim])
						copy(to.Row(int(r))[n:], kv.Row(i)[half+from:half+from+a.Heads.Dim])
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
