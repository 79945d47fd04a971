package model

import (
	"slices"

	"ptune/internal/batch"
	"ptune/internal/ops"
)

// splitBatch is a batch in parts. A batch that is not split is its own trunk, without parts.
type splitBatch struct {
	trunk  *ops.Layout
	parts  []*ops.Layout
	partOf []int // the part of each target, as batch.Forest.Split returns it
}

// split divides a batch into parts of about m.PartRows rows. Without a soft prompt it does not:
// then weights are trained, and each part would be one more pass over their gradients.
func (m *Model) split(f *batch.Forest) (s splitBatch, err error) {
	trunk, parts := f, []*batch.Forest(nil)
	if f.Prompts > 0 {
		trunk, parts, s.partOf = f.Split(m.PartRows)
	}
	if s.trunk, err = m.layout(trunk); err != nil {
		return s, err
	}
	s.trunk.Scale = 1
	for _, p := range parts {
		l, err := m.layout(p)
		if err != nil {
			return s, err
		}
		l.Scale = 1
		s.parts = append(s.parts, l)
	}
	return s, nil
}

// rows returns the largest number of rows that are computed at a time.
func (s *splitBatch) rows() int {
	n := len(s.trunk.IDs)
	for _, l := range s.parts {
		n = max(n, len(l.IDs))
	}
	return n
}

// gradient runs the trunk forward, then each part, then the trunk backward. It returns −log p of each
// target and the gradient of the soft prompts [P, D], valid until the next call. With a planner it only
// plans.
func (m *Model) gradient(s splitBatch, prompts []float32, p *ops.Planner) (
	nll, grad []float32, err error) {
	trunk, err := m.graph(lossAndGradient, s.trunk.Prompts)
	if err != nil {
		return nil, nil, err
	}
	trunk.Trunk, trunk.Planner, trunk.Recompute = nil, p, m.Recompute.of(s.rows())
	if s.parts == nil {
		err := m.run(trunk, prompts, s.trunk)
		return trunk.NLL, ops.Value(trunk.grad).Data, err
	}
	part, err := m.graph(partGradient, 0)
	if err != nil {
		return nil, nil, err
	}
	trunk.Trunk, part.Trunk, part.Planner, part.Recompute = &m.trunk, &m.trunk, p, trunk.Recompute
	if err := m.bind(trunk, prompts, s.trunk); err != nil {
		return nil, nil, err
	}
	if err := m.failed(trunk.RunToPause()); err != nil {
		return nil, nil, err
	}
	partNLL := make([][]float32, len(s.parts))
	for i, l := range s.parts {
		if err := m.run(part, nil, l); err != nil {
			return nil, nil, err
		}
		partNLL[i] = slices.Clone(part.NLL)
	}
	if err := m.failed(trunk.Continue()); err != nil {
		return nil, nil, err
	}
	if p == nil {
		nll = inTargetOrder(s.partOf, trunk.NLL, partNLL)
	}
	return nll, ops.Value(trunk.grad).Data, nil
}

// inTargetOrder merges the losses of the trunk's targets and of each part's into the order of partOf.
func inTargetOrder(partOf []int, trunk []float32, parts [][]float32) []float32 {
	all := make([]float32, len(partOf))
	for i, part := range partOf {
		from := &trunk
		if part >= 0 {
			from = &parts[part]
		}
		all[i], *from = (*from)[0], (*from)[1:]
	}
	return all
}
