package ops

import G "gorgonia.org/gorgonia"

// Trunk is what the parts of a batch share: the keys and values of its rows in each layer, and the sums of the gradients that come
// back for them. The parts run between its way forward and its way back.
type Trunk struct{ keys, grads []Matrix }

// forward keeps the keys and values [T, KVCols] of the trunk's run, or puts them above those of a part's.
func (t *Trunk) forward(g *Graph, layer int, kv Matrix) {
	t.fill(g, layer, kv)
	if t == nil || g.Layout.Above > 0 {
		return
	}
	for len(t.keys) <= layer {
		t.keys, t.grads = append(t.keys, Matrix{}), append(t.grads, Matrix{})
	}
	copyRows(grown(&t.keys[layer], kv.Rows, kv.Cols), kv)
	clear(grown(&t.grads[layer], kv.Rows, kv.Cols).Data)
}

// fill writes the trunk's keys and values above those of a part's run. The way back needs it again where a layer's have been dropped
// and made anew.
func (t *Trunk) fill(g *Graph, layer int, kv Matrix) {
	if n := g.Layout.Above; n > 0 {
		copyRows(kv.Top(n), t.keys[layer])
	}
}

// backward adds the gradients that a part gives its trunk to the others', or in the trunk's run all of them to its own.
func (t *Trunk) backward(g *Graph, layer int, dkv Matrix) {
	if t == nil {
		return
	}
	if n := g.Layout.Above; n > 0 {
		g.Pool.Add(t.grads[layer], t.grads[layer], dkv.Top(n))
	} else {
		g.Pool.Add(dkv, dkv, t.grads[layer].Top(dkv.Rows))
	}
}

// Between is h. Where the batch is in parts, they run when it is made, and what is made of it comes later.
func (g *Graph) Between(h *G.Node) *G.Node {
	return g.apply(&operator{
		name: "parts", diff: []bool{true}, inPlace: 1, parts: true,
		size: func(in []Matrix) (int, int) { return in[0].Rows, in[0].Cols },
		run:  func(out Matrix, in []Matrix) { copyRows(out, in[0]) },
		back: func(_ G.Nodes, dout *G.Node) G.Nodes { return G.Nodes{dout} },
	}, h)
}
