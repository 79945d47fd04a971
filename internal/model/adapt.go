package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"ptune/internal/arch"
	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
	"ptune/internal/param"
)

// Param is what is trained in place of a prompt: a part of a LoRA or a weight of the model.
type Param = param.Tensor

// linears are all frozen products of the layers.
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

// module is a weight's module as transformers names it, whatever the checkpoint leaves out.
func (m *Model) module(w kernels.Weight) string {
	return m.Prefix + strings.TrimPrefix(strings.TrimSuffix(w.Name, ".weight"), m.Prefix)
}

// whole are the outputs of each stored matrix: parts of it add up.
func (m *Model) whole() map[string]int {
	out := map[string]int{}
	for _, l := range m.linears() {
		out[l.Weight.Name] = max(out[l.Weight.Name], l.Weight.From+l.Weight.Out)
	}
	return out
}

// params makes tensors by name, each once.
type params struct {
	all  []*Param
	find map[string]*Param
}

func (p *params) of(name string, shape ...int) *Param {
	if x := p.find[name]; x != nil {
		return x
	}
	x := param.New(name, shape...)
	p.find[name], p.all = x, append(p.all, x)
	return x
}

// AddLoRA puts a LoRA beside every matrix of the modules that the configuration targets and returns what is to be trained: A
// [rank, in] as PEFT draws it, by the seed, and B [out, rank], zero. Detach takes it off again.
func (m *Model) AddLoRA(c LoRA, seed uint64) ([]*Param, error) {
	targets := c.Targets
	if len(targets) == 0 {
		targets = loraTargets(m.Type)
	}
	p := params{find: map[string]*Param{}}
	r, outs := rand.New(rand.NewPCG(seed, 0x6c6f7261)), m.whole() // "lora"
	used, ad := map[string]bool{}, &Adapter{LoRAs: map[*arch.Linear]*ops.LoRA{}}
	for _, l := range m.linears() {
		module := m.module(l.Weight)
		at := slices.IndexFunc(targets, func(t string) bool { return t == allLinear || module == t || strings.HasSuffix(module, "."+t) })
		if at < 0 {
			continue
		}
		used[targets[at]] = true
		out, in := outs[l.Weight.Name], l.Weight.In
		fresh := p.find[module+loraA] == nil
		a, b := p.of(module+loraA, c.Rank, in), p.of(module+loraB, out, c.Rank)
		if fresh {
			for i := range a.Values {
				a.Values[i] = float32((2*r.Float64() - 1) / math.Sqrt(float64(in)))
			}
		}
		from, n := l.Weight.From*c.Rank, l.Weight.Out*c.Rank
		ad.LoRAs[l] = &ops.LoRA{
			A:  kernels.Weight{Name: a.Name, Data: kernels.FloatBytes(a.Values), Out: c.Rank, In: in, Stride: in},
			B:  kernels.Weight{Name: b.Name, Data: kernels.FloatBytes(b.Values[from : from+n]), Out: l.Weight.Out, In: c.Rank, Stride: c.Rank},
			DA: kernels.View(a.Grad, c.Rank, in), DB: kernels.View(b.Grad[from:from+n], l.Weight.Out, c.Rank),
			Scale: float32(c.Alpha / float64(c.Rank)),
		}
	}
	for _, t := range targets {
		if !used[t] {
			return nil, fmt.Errorf("LoRA targets %q, but %s has no such module; it has %s", t, m.Name, strings.Join(m.modules(), ", "))
		}
	}
	m.Attach(ad)
	return p.all, nil
}

// modules are the last names of the modules that a LoRA can target.
func (m *Model) modules() []string {
	var names []string
	for _, l := range m.linears() {
		module := m.module(l.Weight)
		if name := module[strings.LastIndexByte(module, '.')+1:]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// TrainAll attaches an f32 copy of every weight and returns all of them to be trained: full fine-tuning.
// Detach takes them off again.
func (m *Model) TrainAll() []*Param {
	p := params{find: map[string]*Param{}}
	outs := m.whole()
	ad := &Adapter{Linears: map[*arch.Linear]ops.Linear{}, Norms: map[*arch.Norm]ops.Norm{}}
	// matrix returns the copy of a weight and its gradient: of a part of a stored matrix with out outputs,
	// those of its rows or columns.
	matrix := func(w kernels.Weight, out int) (kernels.Weight, kernels.Matrix) {
		rows, cols := out, w.In
		if w.InOut {
			rows, cols = w.In, out
		}
		x := p.of(w.Name, rows, cols)
		from, r, c := w.From*w.In, w.Out, w.In
		if w.InOut {
			from, r, c = w.From, w.In, w.Out
		}
		values := kernels.Matrix{Rows: r, Cols: c, Stride: cols, Data: x.Values[from:]}
		for i := range r {
			kernels.ToFloats(values.Row(i), w.Data[i*w.Stride*w.DType.Size():], w.DType)
		}
		w.Data, w.DType, w.Stride = kernels.FloatBytes(x.Values[from:]), kernels.F32, cols
		return w, kernels.Matrix{Rows: r, Cols: c, Stride: cols, Data: x.Grad[from:]}
	}
	vector := func(name string, values []float32) (trained, grad []float32) {
		if values == nil {
			return nil, nil
		}
		x := p.of(name, len(values))
		copy(x.Values, values)
		return x.Values, x.Grad
	}
	linear := func(l *arch.Linear, out int) {
		name := strings.TrimSuffix(l.Weight.Name, ".weight")
		o := ops.Linear{Grad: &ops.Grad{}}
		o.Weight, o.Grad.Weight = matrix(l.Weight, out)
		o.Bias, o.Grad.Bias = vector(fmt.Sprintf("%s.bias%s", name, part(l.Weight, out)), l.Bias)
		ad.Linears[l] = o
	}
	norm := func(n *arch.Norm) {
		if n == nil {
			return
		}
		o := ops.Norm{Name: n.Name, Eps: n.Eps, Grad: &ops.NormGrad{}}
		o.Weight, o.Grad.Weight = vector(n.Name+".weight", n.Weight)
		o.Bias, o.Grad.Bias = vector(n.Name+".bias", n.Bias)
		ad.Norms[n] = o
	}
	e := m.embedding()
	e.Grad = &ops.EmbeddingGrad{}
	e.Tokens, e.Grad.Tokens = matrix(e.Tokens, e.Tokens.Out)
	if e.Positions != nil {
		positions, grad := matrix(*e.Positions, e.Positions.Out)
		e.Positions, e.Grad.Positions = &positions, grad
	}
	ad.Embedding = &e
	norm(m.EmbedNorm)
	for _, l := range m.linears() {
		linear(l, outs[l.Weight.Name])
	}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		for _, n := range []*arch.Norm{b.AttnNorm, b.AttnPost, b.MLPNorm, b.MLPPost, b.Attn.QNorm, b.Attn.KNorm} {
			norm(n)
		}
	}
	norm(m.Norm)
	linear(&m.Head.Linear, m.Head.Weight.Out)
	m.Attach(ad)
	return p.all
}

// part tells the biases of a stored matrix's parts apart.
func part(w kernels.Weight, out int) string {
	if w.Out == out {
		return ""
	}
	return fmt.Sprintf("[%d:%d]", w.From, w.From+w.Out)
}

// ParamGrad is −log p of each of a forest's targets; the gradients of their sum are added to those of the parameters that AddLoRA or
// TrainAll gave. The result is valid until the next call.
func (m *Model) ParamGrad(f *batch.Forest) ([]float32, error) {
	return m.LossGrad(nil, f, nil)
}
