package model

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// graphKey tells graphs apart; sizes other than the soft prompts' rows are the run's.
type graphKey struct {
	kind    graphKind
	prompts int
}

type graphKind int

const (
	lossOnly graphKind = iota
	lossAndGradient
	partOfOne // lossAndGradient of rows behind a trunk's
	decoding
)

// graph is a compiled graph with its input and results.
type graph struct {
	*ops.Graph
	prompt *G.Node
	grad   *G.Node // [P, D]
	logits *G.Node // [Tt, V]
}

// graph returns the graph of that kind for so many rows of soft prompts, built at first use. Panics of the graph library,
// which checks its arguments that way, become errors.
func (m *Model) graph(kind graphKind, prompts int) (gr *graph, err error) {
	key := graphKey{kind, prompts}
	if gr := m.graphs[key]; gr != nil {
		return gr, nil
	}
	defer func() {
		if r := recover(); r != nil {
			gr, err = nil, fmt.Errorf("build the graph of %s: %v", m.Name, r)
		}
	}()
	g := ops.NewGraph(m.pool, m.arena)
	g.Observe = m.Observe
	gr = &graph{Graph: g, prompt: g.Input(max(1, prompts), m.Hidden)}
	h := m.hidden(g, g.Embed(gr.prompt, m.embedding()), prompts > 0 || kind == partOfOne)
	switch kind {
	case decoding:
		gr.logits = g.Logits(h, m.head())
		g.Compile(gr.logits)
	case lossAndGradient, partOfOne:
		if gr.grad, err = g.Grad(g.HeadLoss(g.Between(h), m.head()), gr.prompt); err != nil {
			return nil, err
		}
		g.Compile(gr.grad)
	default:
		g.HeadLoss(h, m.head())
		g.Compile()
	}
	m.graphs[key] = gr
	return gr, nil
}

// run runs a graph with soft prompts of [P, D] values on a layout.
func (m *Model) run(gr *graph, prompts []float32, l *ops.Layout) error {
	if l.Prompts == 0 {
		prompts = make([]float32, gr.prompt.Shape().TotalSize()) // not read
	}
	value := tensor.New(tensor.WithShape(gr.prompt.Shape()...), tensor.WithBacking(prompts))
	if err := G.Let(gr.prompt, value); err != nil {
		return fmt.Errorf("run %s: soft prompts of %d values: %w", m.Name, len(prompts), err)
	}
	gr.Layout = l
	if err := gr.Run(); err != nil {
		return fmt.Errorf("run %s: %w", m.Name, err)
	}
	return nil
}

// check refuses soft prompts of the wrong size, and a forest with nothing to predict.
func (m *Model) check(prompts []float32, f *batch.Forest) error {
	if len(prompts) != f.Prompts*m.Hidden {
		return fmt.Errorf("run %s: soft prompts have %d values, want %d rows of %d", m.Name, len(prompts), f.Prompts, m.Hidden)
	}
	if len(f.Targets) == 0 {
		return fmt.Errorf("run %s: no token to predict", m.Name)
	}
	return nil
}

// LossGrad is −log p of each of a forest's targets behind the soft prompts [P, D]; the gradient of their sum is added to
// grad [P, D]. It is computed in parts of about m.Part rows. The result is valid until the next call.
func (m *Model) LossGrad(prompts []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	if err := m.check(prompts, f); err != nil {
		return nil, err
	}
	d, err := m.divide(f)
	if err != nil {
		return nil, err
	}
	nll := make([][]float32, len(d.parts))
	gr, err := m.gradient(d, func(i int, part *graph) error {
		err := m.run(part, nil, d.parts[i])
		nll[i] = slices.Clone(part.NLL)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := m.run(gr, prompts, d.trunk); err != nil {
		return nil, err
	}
	for i, v := range ops.Value(gr.grad).Data {
		grad[i] += v
	}
	if d.parts == nil {
		return gr.NLL, nil
	}
	return inOrder(d.of, gr.NLL, nll), nil
}

// Plan is what LossGrad takes on a forest: the FLOPs, and the bytes of values and scratch beside the weights. Nothing is computed.
func (m *Model) Plan(f *batch.Forest) (plan ops.Plan, err error) {
	d, err := m.divide(f)
	if err != nil {
		return plan, err
	}
	var gr *graph
	gr, err = m.gradient(d, func(i int, part *graph) error {
		return m.plan(part, d.parts[i], func() error { return part.PlanWithin(gr.Graph) })
	})
	if err != nil {
		return plan, err
	}
	if err := m.plan(gr, d.trunk, func() error { plan, err = gr.Plan(); return err }); err != nil {
		return ops.Plan{}, err
	}
	plan.Rows = d.rows()
	if d.parts != nil {
		plan.Bytes += 2 * 4 * int64(len(d.trunk.IDs)) * int64(m.Layers()*m.Heads.KVCols()) // keys, values and their gradients
	}
	for _, b := range m.Blocks {
		plan.Packed = max(plan.Packed, m.pool.Packed(plan.Rows, b.MLP.Down.Weight.In))
	}
	return plan, nil
}

// plan makes a graph ready to be planned on a layout, and does so.
func (m *Model) plan(gr *graph, l *ops.Layout, do func() error) error {
	gr.Layout = l
	err := G.Let(gr.prompt, tensor.New(tensor.WithShape(gr.prompt.Shape()...), tensor.Of(tensor.Float32)))
	if err == nil {
		err = do()
	}
	if err != nil {
		return fmt.Errorf("plan a run of %s: %w", m.Name, err)
	}
	return nil
}

// NLL is −log p of each of a forest's targets behind the soft prompts [P, D]. It is valid until the next call.
func (m *Model) NLL(prompts []float32, f *batch.Forest) ([]float32, error) {
	if err := m.check(prompts, f); err != nil {
		return nil, err
	}
	l, err := m.layout(f)
	if err != nil {
		return nil, err
	}
	gr, err := m.graph(lossOnly, f.Prompts)
	if err != nil {
		return nil, err
	}
	if err := m.run(gr, prompts, l); err != nil {
		return nil, err
	}
	return gr.NLL, nil
}

// Logits are the logits [Tt, V] from which a forest's targets are predicted. They are valid until the next call.
func (m *Model) Logits(prompts []float32, f *batch.Forest) (kernels.Matrix, error) {
	if err := m.check(prompts, f); err != nil {
		return kernels.Matrix{}, err
	}
	l, err := m.layout(f)
	if err != nil {
		return kernels.Matrix{}, err
	}
	gr, err := m.graph(decoding, f.Prompts)
	if err != nil {
		return kernels.Matrix{}, err
	}
	gr.Cache = nil
	if err := m.run(gr, prompts, l); err != nil {
		return kernels.Matrix{}, err
	}
	return ops.Value(gr.logits), nil
}
