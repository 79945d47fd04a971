package model

import (
	"fmt"
	"slices"
	"strings"

	"ptune/internal/arch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
	"ptune/internal/param"
)

// Adapter is what is trained of a base model or beside it: a LoRA beside some linears, or copies that
// replace the description's weights. A linear or norm that it does not name stays frozen. Several
// adapters can be made for one model; one at a time is attached.
type Adapter struct {
	LoRAs     map[*arch.Linear]*ops.LoRA
	Linears   map[*arch.Linear]ops.Linear
	Norms     map[*arch.Norm]ops.Norm
	Embedding *ops.Embedding // nil: frozen
}

// Attach makes the next runs use a instead of what was attached before. The base stays as it is. Keys
// and values that a Decoder has cached are still those of the adapter before.
func (m *Model) Attach(a *Adapter) {
	m.adapter = a
	for _, g := range m.graphs {
		g.Release()
	}
	clear(m.graphs)
}

// Detach takes the attached adapter off: the next runs use the base alone.
func (m *Model) Detach() { m.Attach(nil) }

// Modules returns the matrices of the layers, beside which a LoRA can be put, in order.
func (m *Model) Modules() []param.Module {
	var all []param.Module
	outs, seen := m.storedOuts(), map[string]bool{}
	for _, l := range m.linears() {
		if w := l.Weight; !seen[w.Name] {
			seen[w.Name] = true
			all = append(all, param.Module{Name: m.module(w), Out: outs[w.Name], In: w.In})
		}
	}
	return all
}

// linears returns all frozen products of the layers. One stored matrix can be several of them.
func (m *Model) linears() []*arch.Linear {
	var all []*arch.Linear
	for i := range m.Blocks {
		b := &m.Blocks[i]
		if f := b.Attn.Fused; f != nil {
			all = append(all, f.Linear)
		} else {
			all = append(all, b.Attn.Q, b.Attn.K, b.Attn.V)
		}
		all = append(all, b.AttnOut)
		if b.MLP.Gate != nil {
			all = append(all, b.MLP.Gate)
		}
		all = append(all, b.MLP.Up, b.MLP.Down)
	}
	return all
}

// module returns the name of a weight's module in transformers. Checkpoints may leave out the prefix.
func (m *Model) module(w kernels.Weight) string {
	return m.Prefix + strings.TrimPrefix(strings.TrimSuffix(w.Name, ".weight"), m.Prefix)
}

// storedOuts returns the outputs of each stored matrix by its name: those of all its parts.
func (m *Model) storedOuts() map[string]int {
	outs := map[string]int{}
	for _, l := range m.linears() {
		outs[l.Weight.Name] = max(outs[l.Weight.Name], l.Weight.From+l.Weight.Out)
	}
	return outs
}

// NewLoRA returns an adapter that adds scale (x Aᵀ) Bᵀ to the result of each module of which params has
// the factors A [rank, In] and B [Out, rank]. The adapter uses their arrays: runs see their current
// values and add to their gradients. It fails if a tensor fits no module.
func (m *Model) NewLoRA(params []*param.Tensor, scale float32) (*Adapter, error) {
	find := map[string]*param.Tensor{}
	for _, p := range params {
		find[p.Name] = p
	}
	outs, used := m.storedOuts(), map[*param.Tensor]bool{}
	adapter := &Adapter{LoRAs: map[*arch.Linear]*ops.LoRA{}}
	for _, l := range m.linears() {
		w, module := l.Weight, m.module(l.Weight)
		a, b := find[module+param.LoRAA], find[module+param.LoRAB]
		if a == nil || b == nil {
			continue
		}
		rank, out := a.Shape[0], outs[w.Name]
		if !slices.Equal(a.Shape, []int{rank, w.In}) || !slices.Equal(b.Shape, []int{out, rank}) {
			return nil, fmt.Errorf("the LoRA of %s has factors %v and %v, the module is [%d %d]",
				module, a.Shape, b.Shape, out, w.In)
		}
		used[a], used[b] = true, true
		adapter.LoRAs[l] = newLoRA(a, b, w, scale)
	}
	for _, p := range params {
		if !used[p] {
			return nil, fmt.Errorf("%s has no module for the LoRA's %s", m.Name, p.Name)
		}
	}
	return adapter, nil
}

// newLoRA returns the LoRA beside w, which gets the rows of B that make its outputs.
func newLoRA(a, b *param.Tensor, w kernels.Weight, scale float32) *ops.LoRA {
	rank := a.Shape[0]
	from, to := w.From*rank, (w.From+w.Out)*rank
	return &ops.LoRA{
		A: kernels.Weight{
			Name: a.Name, Data: kernels.FloatBytes(a.Values), Out: rank, In: w.In, Stride: w.In,
		},
		B: kernels.Weight{
			Name: b.Name, Data: kernels.FloatBytes(b.Values[from:to]), Out: w.Out, In: rank,
			Stride: rank,
		},
		DA:    kernels.View(a.Grad, rank, w.In),
		DB:    kernels.View(b.Grad[from:to], w.Out, rank),
		Scale: scale,
	}
}

// CopyWeights returns an adapter that replaces every weight with an f32 copy, and the copies: what full
// fine-tuning trains.
func (m *Model) CopyWeights() (*Adapter, []*param.Tensor) {
	c := &copier{find: map[string]*param.Tensor{}, adapter: &Adapter{
		Linears: map[*arch.Linear]ops.Linear{}, Norms: map[*arch.Norm]ops.Norm{},
	}}
	c.embedding(m.baseEmbedding())
	c.norm(m.EmbedNorm)
	outs := m.storedOuts()
	for _, l := range m.linears() {
		c.linear(l, outs[l.Weight.Name])
	}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		for _, n := range []*arch.Norm{b.AttnNorm, b.AttnPost, b.MLPNorm, b.MLPPost, b.Attn.QNorm,
			b.Attn.KNorm} {
			c.norm(n)
		}
	}
	c.norm(m.Norm)
	c.linear(&m.Head.Linear, m.Head.Weight.Out)
	return c.adapter, c.tensors
}

// copier makes an adapter of copies.
type copier struct {
	adapter *Adapter
	tensors []*param.Tensor
	find    map[string]*param.Tensor // by name
}

// tensor returns the copy of that name, made at first use: a tied head is the embedding.
func (c *copier) tensor(name string, shape ...int) *param.Tensor {
	if x := c.find[name]; x != nil {
		return x
	}
	x := param.New(name, shape...)
	c.find[name], c.tensors = x, append(c.tensors, x)
	return x
}

// matrix returns the copy of a weight and its gradient. If w is a part of a stored matrix with out
// outputs, they are views of its rows or columns.
func (c *copier) matrix(w kernels.Weight, out int) (kernels.Weight, kernels.Matrix) {
	rows, cols := out, w.In
	if w.InOut {
		rows, cols = w.In, out
	}
	x := c.tensor(w.Name, rows, cols)
	from, partRows, partCols := w.From*w.In, w.Out, w.In
	if w.InOut {
		from, partRows, partCols = w.From, w.In, w.Out
	}
	view := func(data []float32) kernels.Matrix {
		return kernels.Matrix{Rows: partRows, Cols: partCols, Stride: cols, Data: data[from:]}
	}
	values := view(x.Values)
	for i := range partRows {
		kernels.ToFloats(values.Row(i), w.Data[w.DType.Bytes(w.StoredRow(i)*w.Stride):], w.DType)
	}
	w.Data, w.DType, w.Stride, w.Pairs = kernels.FloatBytes(x.Values[from:]), kernels.F32, cols, 0
	return w, view(x.Grad)
}

// vector returns the copy of a vector and its gradient; nil if there is none.
func (c *copier) vector(name string, values []float32) (trained, grad []float32) {
	if values == nil {
		return nil, nil
	}
	x := c.tensor(name, len(values))
	copy(x.Values, values)
	return x.Values, x.Grad
}

func (c *copier) linear(l *arch.Linear, out int) {
	bias := strings.TrimSuffix(l.Weight.Name, ".weight") + ".bias"
	if w := l.Weight; w.Out != out { // each part of a stored matrix has its own bias
		bias += fmt.Sprintf("[%d:%d]", w.From, w.From+w.Out)
	}
	o := ops.Linear{Grad: &ops.Grad{}}
	o.Weight, o.Grad.Weight = c.matrix(l.Weight, out)
	o.Bias, o.Grad.Bias = c.vector(bias, l.Bias)
	c.adapter.Linears[l] = o
}

func (c *copier) norm(n *arch.Norm) {
	if n == nil {
		return
	}
	o := ops.Norm{Name: n.Name, Eps: n.Eps, Grad: &ops.NormGrad{}}
	o.Weight, o.Grad.Weight = c.vector(n.Name+".weight", n.Weight)
	o.Bias, o.Grad.Bias = c.vector(n.Name+".bias", n.Bias)
	c.adapter.Norms[n] = o
}

func (c *copier) embedding(e ops.Embedding) {
	e.Grad = &ops.EmbeddingGrad{}
	e.Tokens, e.Grad.Tokens = c.matrix(e.Tokens, e.Tokens.Out)
	if e.Positions != nil {
		positions, grad := c.matrix(*e.Positions, e.Positions.Out)
		e.Positions, e.Grad.Positions = &positions, grad
	}
	c.adapter.Embedding = &e
}
