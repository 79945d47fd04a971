package ops

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
)

// Attention is the attention of one layer. Its queries, keys and values travel as one flat value: the queries [Tq, QCols],
// then the keys and values [T, KVCols], so that every operator here has one gradient.
type Attention struct {
	Name    string
	Layer   int // its place in the graph's cache
	Heads   kernels.Heads
	Q, K, V Linear
	Rotary  *kernels.Rotary // nil: positions are not rotary
	Targets bool            // only the target rows ask: the last layer
	Want    Rows            // which rows of the layer's input want a gradient
}

// queries is the number of query rows.
func (a *Attention) queries(g *Graph) int {
	if a.Targets {
		return len(g.Layout.TargetRows)
	}
	return len(g.Layout.IDs)
}

// split views a flat value with queries for nq rows and keys and values for nk.
func (a *Attention) split(flat Matrix, nq, nk int) (q, kv Matrix) {
	n := nq * a.Heads.QCols()
	return kernels.View(flat.Data[:n], nq, a.Heads.QCols()), kernels.View(flat.Data[n:], nk, a.Heads.KVCols())
}

// forwardSize and backSize are the row counts of the flat value and of its gradient.
func (a *Attention) forwardSize(g *Graph) (nq, nk int) { return a.queries(g), len(g.Layout.IDs) }

func (a *Attention) backSize(g *Graph) (nq, nk int) {
	return g.count(a.Want, a.queries(g)), g.count(a.Want, len(g.Layout.IDs))
}

func (a *Attention) flat(rows func(*Graph) (nq, nk int), g *Graph) func([]Matrix) (int, int) {
	return func([]Matrix) (int, int) {
		nq, nk := rows(g)
		return 1, nq*a.Heads.QCols() + nk*a.Heads.KVCols()
	}
}

// Attend is what the layer's query rows [Tq, QCols] gather from the rows they see, given the layer's normed input h [T, D].
func (g *Graph) Attend(h *G.Node, a *Attention) *G.Node {
	qkv := g.project(h, a)
	if a.Rotary != nil {
		qkv = g.rotate(qkv, a, false)
	}
	return g.attend(qkv, a)
}

// project is the flat queries, keys and values of h.
func (g *Graph) project(h *G.Node, a *Attention) *G.Node {
	half := a.Heads.KVCols() / 2
	var few Matrix // the target rows of h, or of its gradient
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
			q, kv := a.split(out, nq, nk)
			k, v := kv.Columns(0, half), kv.Columns(half, half)
			if !a.Targets {
				forward(g.Pool, []Matrix{q, k, v}, x, []Linear{a.Q, a.K, a.V})
				return
			}
			asking := grown(&few, len(g.Layout.TargetRows), x.Cols)
			for i, r := range g.Layout.TargetRows {
				copy(asking.Row(i), x.Row(int(r)))
			}
			forward(g.Pool, []Matrix{q}, asking, []Linear{a.Q})
			forward(g.Pool, []Matrix{k, v}, x, []Linear{a.K, a.V})
		},
		back: func(_ G.Nodes, dout *G.Node) G.Nodes {
			return G.Nodes{g.apply(&operator{
				name: a.Name + ".qkv'",
				size: func([]Matrix) (int, int) { return g.count(a.Want, len(g.Layout.IDs)), a.Q.Weight.In },
				flops: func(Matrix, []Matrix) float64 {
					nq, nk := a.backSize(g)
					return work(nq, a.Q) + work(nk, a.K, a.V)
				},
				run: func(out Matrix, in []Matrix) {
					nq, nk := a.backSize(g)
					dq, dkv := a.split(in[0], nq, nk)
					g.Pool.ProductBack(out, dkv.Columns(0, half), a.K.Weight, false)
					g.Pool.ProductBack(out, dkv.Columns(half, half), a.V.Weight, true)
					if !a.Targets {
						g.Pool.ProductBack(out, dq, a.Q.Weight, true)
						return
					}
					d := grown(&few, len(g.Layout.TargetRows), out.Cols)
					g.Pool.ProductBack(d, dq, a.Q.Weight, false)
					for i, r := range g.Layout.TargetRows {
						addRow(out.Row(int(r)), d.Row(i))
					}
				},
			}, dout)}
		},
	}, h)
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
			q, kv := a.split(out, nq, nk)
			pos := g.Layout.Pos
			if a.Targets {
				pos = make([]int32, nq)
				for i := range pos {
					pos[i] = g.Layout.Pos[g.Layout.TargetRows[i]]
				}
			}
			g.Pool.Rotate(q, a.Heads.Q, a.Rotary, pos, back)
			g.Pool.Rotate(kv, a.Heads.KV, a.Rotary, g.Layout.Pos, back)
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
			q, kv := a.split(in[0], nq, nk)
			grown(&lse, nq, a.Heads.Q)
			if g.Cache != nil {
				for i, r := range g.Layout.CacheRows {
					copy(g.Cache[a.Layer].Row(int(r)), kv.Row(i))
				}
				kv = g.Cache[a.Layer]
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
					q, kv := a.split(in[0], nq, nk)
					mq, mk := a.backSize(g)
					dq, dkv := a.split(out, mq, mk)
					g.Pool.AttendBack(dq, dkv, in[1], lse, q, kv, a.Heads, groups())
				},
			}, in[0], dout)}
		},
	}, qkv)
}
