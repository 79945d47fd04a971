package model

import (
	"ptune/internal/batch"
	"ptune/internal/ops"
)

// divided is a batch in parts, or whole, in which case it is its own trunk and there are none.
type divided struct {
	trunk *ops.Layout
	parts []*ops.Layout
	of    []int // the part of each target, as batch.Forest.Cut says it
}

// divide shares a batch out in parts of about m.Part rows. Where there is no soft prompt other weights are trained, for which each part would
// be a pass over their gradients.
func (m *Model) divide(f *batch.Forest) (d divided, err error) {
	trunk, parts := f, []*batch.Forest(nil)
	if f.Prompts > 0 {
		trunk, parts, d.of = f.Cut(m.Part)
	}
	if d.trunk, err = m.layout(trunk); err != nil {
		return d, err
	}
	d.trunk.Scale = 1
	for _, p := range parts {
		l, err := m.layout(p)
		if err != nil {
			return d, err
		}
		l.Scale = 1
		d.parts = append(d.parts, l)
	}
	return d, nil
}

// rows is how many rows are computed at a time, at most.
func (d *divided) rows() int {
	n := len(d.trunk.IDs)
	for _, l := range d.parts {
		n = max(n, len(l.IDs))
	}
	return n
}

// gradient is the graph with a loss and its gradient for the trunk's run, which calls do for the run of each part.
func (m *Model) gradient(d divided, do func(i int, part *graph) error) (*graph, error) {
	gr, err := m.graph(lossAndGradient, d.trunk.Prompts)
	if err != nil {
		return nil, err
	}
	gr.Trunk, gr.Parts, gr.Recompute = nil, nil, m.Recompute.of(d.rows())
	if d.parts == nil {
		return gr, nil
	}
	part, err := m.graph(partOfOne, 0)
	if err != nil {
		return nil, err
	}
	gr.Trunk, part.Trunk, part.Recompute = &m.trunk, &m.trunk, gr.Recompute
	gr.Parts = func() error {
		for i := range d.parts {
			if err := do(i, part); err != nil {
				return err
			}
		}
		return nil
	}
	return gr, nil
}

// inOrder puts the losses of the trunk's targets and of each part's, which keep their order, where of says that they come from.
func inOrder(of []int, trunk []float32, parts [][]float32) []float32 {
	all := make([]float32, len(of))
	for i, part := range of {
		from := &trunk
		if part >= 0 {
			from = &parts[part]
		}
		all[i], *from = (*from)[0], (*from)[1:]
	}
	return all
}
