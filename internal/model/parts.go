package model

import (
	"ptune/internal/batch"
	"ptune/internal/ops"
)

// cut shares a batch out in parts of at most m.Part rows. Where there is no soft prompt other weights are trained, for which each part would be a
// pass over their gradients.
func (m *Model) cut(f *batch.Forest) (trunk *batch.Forest, parts []*batch.Forest, of []int) {
	if f.Prompts == 0 {
		return f, nil, nil
	}
	return f.Cut(m.Part)
}

// inParts is the graph with a loss and its gradient, and the layout of its run, for a batch with the layout whole. If it is in parts, this
// is the trunk's run, which calls do for the run of each.
func (m *Model) inParts(whole *ops.Layout, trunk *batch.Forest, parts []*batch.Forest, do func(i int, part *graph, l *ops.Layout) error) (*graph, *ops.Layout, error) {
	gr, err := m.graph(lossAndGradient, trunk.Prompts)
	if err != nil {
		return nil, nil, err
	}
	gr.Trunk, gr.Parts, whole.Scale = nil, nil, 1
	if parts == nil {
		return gr, whole, nil
	}
	part, err := m.graph(partOfOne, 0)
	if err != nil {
		return nil, nil, err
	}
	l, err := m.layout(trunk)
	if err != nil {
		return nil, nil, err
	}
	gr.Trunk, part.Trunk, l.Scale = &m.trunk, &m.trunk, 1
	gr.Parts = func() error {
		for i, f := range parts {
			l, err := m.layout(f)
			if err != nil {
				return err
			}
			l.Scale = 1
			if err := do(i, part, l); err != nil {
				return err
			}
		}
		return nil
	}
	return gr, l, nil
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
