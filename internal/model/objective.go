package model

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// graphKey identifies a graph. All sizes but the soft prompts' rows are those of the run.
type graphKey struct {
	kind    graphKind
	prompts int // rows of soft prompts; without a gradient 1 for any number above 0
}

type graphKind int

const (
	lossOnly graphKind = iota
	lossAndGradient
	partGradient // lossAndGradient of a part of a split batch
	decoding
	scoring // decoding, with the head's HeadScores
)

// graph is a compiled graph with its input and results.
type graph struct {
	*ops.Graph
	prompt *G.Node
	grad   *G.Node // [P, D]
	logits *G.Node // [Tt, V]
}

// graph returns the graph of a kind for soft prompts of that many rows. It is built at first use. The
// graph library checks its arguments with panics, which become errors here.
func (m *Model) graph(kind graphKind, prompts int) (gr *graph, err error) {
	if kind != lossAndGradient && kind != partGradient {
		prompts = min(prompts, 1)
	}
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
	h := m.hidden(g, g.Embed(gr.prompt, m.embedding()), prompts > 0 || kind == partGradient)
	switch kind {
	case decoding:
		gr.logits = g.Logits(h, m.head())
		g.Compile(gr.logits)
	case scoring:
		g.HeadScores(h, m.head())
		g.Compile()
	case lossAndGradient, partGradient:
		if gr.grad, err = g.Grad(g.HeadLoss(g.Pause(h), m.head()), gr.prompt); err != nil {
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

// bind makes a graph ready to run with soft prompts of [P, D] values on a layout.
func (m *Model) bind(gr *graph, prompts []float32, l *ops.Layout) error {
	if gr.grad == nil {
		l.PromptValues = prompts
	}
	if gr.grad == nil || l.Prompts == 0 || gr.Planner != nil {
		prompts = make([]float32, gr.prompt.Shape().TotalSize()) // not read
	}
	value := tensor.New(tensor.WithShape(gr.prompt.Shape()...), tensor.WithBacking(prompts))
	if err := G.Let(gr.prompt, value); err != nil {
		return fmt.Errorf("run %s: soft prompts of %d values: %w", m.Name, len(prompts), err)
	}
	gr.Layout, gr.Stop = l, m.Stop
	return nil
}

// run runs a graph with soft prompts of [P, D] values on a layout.
func (m *Model) run(gr *graph, prompts []float32, l *ops.Layout) error {
	if err := m.bind(gr, prompts, l); err != nil {
		return err
	}
	return m.failed(gr.Run())
}

// failed adds the model's name to the error of a run.
func (m *Model) failed(err error) error {
	if err != nil && m.Stop != nil && m.Stop() != nil {
		return m.Stop() // gorgonia's machine wraps it
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", m.Name, err)
	}
	return nil
}

// check refuses soft prompts of the wrong size, and a forest without targets.
func (m *Model) check(prompts []float32, f *batch.Forest) error {
	if len(prompts) != f.Prompts*m.Hidden {
		return fmt.Errorf("run %s: soft prompts have %d values, want %d rows of %d",
			m.Name, len(prompts), f.Prompts, m.Hidden)
	}
	if len(f.Targets) == 0 {
		return fmt.Errorf("run %s: no token to predict", m.Name)
	}
	return nil
}

// LossGrad returns −log p of each of a forest's targets after the soft prompts [P, D], and adds the
// gradient of their sum to grad [P, D]. It computes parts of about m.PartRows rows one after the
// other. The result is valid until the next call.
func (m *Model) LossGrad(prompts []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	if err := m.check(prompts, f); err != nil {
		return nil, err
	}
	s, err := m.split(f)
	if err != nil {
		return nil, err
	}
	nll, g, err := m.gradient(s, prompts, nil)
	if err != nil {
		return nil, err
	}
	for i, v := range g {
		grad[i] += v
	}
	return nll, nil
}

// Plan returns what LossGrad takes on a forest: FLOPs and bytes of activations, without the weights and
// the operators' own scratch memory. It computes nothing.
func (m *Model) Plan(f *batch.Forest) (ops.Plan, error) {
	s, err := m.split(f)
	if err != nil {
		return ops.Plan{}, err
	}
	m.planner.Reset()
	if _, _, err := m.gradient(s, nil, &m.planner); err != nil {
		return ops.Plan{}, fmt.Errorf("plan a step: %w", err)
	}
	p := m.planner.Plan
	p.Rows = s.rows()
	if s.parts != nil { // keys and values of the trunk, and their gradients
		p.Bytes += 2 * 4 * int64(len(s.trunk.IDs)) * int64(m.Layers()*m.Heads.KVCols())
	}
	for _, b := range m.Blocks {
		p.Packed = max(p.Packed, m.pool.Packed(p.Rows, b.MLP.Down.Weight.In))
	}
	return p, nil
}

// NLL returns −log p of each of a forest's targets after the soft prompts [P, D]. It is valid until the
// next call.
func (m *Model) NLL(prompts []float32, f *batch.Forest) ([]float32, error) {
	gr, err := m.evaluate(lossOnly, prompts, f)
	if err != nil {
		return nil, err
	}
	return gr.NLL, nil
}

// Margins returns by how much the logit of each of a forest's targets exceeds that of every other token.
// It is negative where another token is likelier. It is valid until the next call.
func (m *Model) Margins(prompts []float32, f *batch.Forest) ([]float32, error) {
	gr, err := m.evaluate(lossOnly, prompts, f)
	if err != nil {
		return nil, err
	}
	return gr.Margin, nil
}

// Logits returns the logits [Tt, V] from which a forest's targets are predicted. They are valid
// until the next call.
func (m *Model) Logits(prompts []float32, f *batch.Forest) (kernels.Matrix, error) {
	gr, err := m.evaluate(decoding, prompts, f)
	if err != nil {
		return kernels.Matrix{}, err
	}
	return ops.Value(gr.logits), nil
}

// evaluate runs a graph without a gradient.
func (m *Model) evaluate(kind graphKind, prompts []float32, f *batch.Forest) (*graph, error) {
	if err := m.check(prompts, f); err != nil {
		return nil, err
	}
	l, err := m.layout(f)
	if err != nil {
		return nil, err
	}
	gr, err := m.graph(kind, f.Prompts)
	if err != nil {
		return nil, err
	}
	gr.Cache = nil
	return gr, m.run(gr, prompts, l)
}
