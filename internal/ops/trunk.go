package ops

// Trunk is what the parts of a split batch share: the keys and values of the trunk's rows in each
// layer, and the sums of the parts' gradients for them. The trunk's forward pass runs first, then
// the parts, then the trunk's backward pass.
type Trunk struct{ keys, grads []Matrix } // by layer

// forward keeps the keys and values kv [T, KVCols] of the trunk's run. In a part's run it copies
// them into the first TrunkRows rows of kv.
func (t *Trunk) forward(g *Graph, layer int, kv Matrix) {
	t.fill(g, layer, kv)
	if t == nil || g.Layout.TrunkRows > 0 {
		return
	}
	for len(t.keys) <= layer {
		t.keys, t.grads = append(t.keys, Matrix{}), append(t.grads, Matrix{})
	}
	copyRows(resize(&t.keys[layer], kv.Rows, kv.Cols), kv)
	clear(resize(&t.grads[layer], kv.Rows, kv.Cols).Data)
}

// fill copies the trunk's keys and values into a part's kv. The backward pass does so again where kv was
// dropped and recomputed.
func (t *Trunk) fill(g *Graph, layer int, kv Matrix) {
	if n := g.Layout.TrunkRows; n > 0 {
		copyRows(kv.Top(n), t.keys[layer])
	}
}

// backward adds a part's gradients of the trunk's keys and values to the sums. In the trunk's run
// it adds the sums to the trunk's own gradients.
func (t *Trunk) backward(g *Graph, layer int, dkv Matrix) {
	if t == nil {
		return
	}
	if n := g.Layout.TrunkRows; n > 0 {
		g.Pool.Add(t.grads[layer], t.grads[layer], dkv.Top(n))
	} else {
		g.Pool.Add(dkv, dkv, t.grads[layer].Top(dkv.Rows))
	}
}
