package model

import (
	"fmt"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// layout returns what the operators read of a forest: positions, and for every query the rows it sees.
func (m *Model) layout(f *batch.Forest) (*ops.Layout, error) {
	l := &ops.Layout{
		TrunkRows: f.TrunkRows, Prompts: f.Prompts, IDs: f.IDs, Pos: make([]int32, f.Rows()),
	}
	owner := make([]int, f.Rows()) // segment of each row
	above := make([][]int32, len(f.Segments))
	for i, s := range f.Segments {
		if last := s.Pos + s.Len; m.MaxPositions > 0 && last > m.MaxPositions {
			return nil, fmt.Errorf(
				"a text is %d tokens long with its soft prompt, but the model has %d positions",
				last, m.MaxPositions)
		}
		if s.Row < f.TrunkRows {
			continue
		}
		row := s.Row - f.TrunkRows
		for k := range s.Len {
			owner[row+k], l.Pos[row+k] = i, int32(s.Pos+k)
		}
		for _, a := range f.Ancestors(i) {
			from := f.Segments[a].Row
			above[i] = addSpan(above[i], from, from+f.Segments[a].Len)
		}
		l.Groups = append(l.Groups, kernels.Group{Row: row, N: s.Len, Own: s.Row, Spans: above[i]})
	}
	for row, id := range f.IDs {
		if row >= f.Prompts && (id < 0 || int(id) >= m.Vocab) {
			return nil, m.unknownToken(id)
		}
	}
	for _, t := range f.Targets {
		if t.ID < 0 || int(t.ID) >= m.Vocab {
			return nil, m.unknownToken(t.ID)
		}
		l.TargetIDs = append(l.TargetIDs, t.ID)
		row := t.Row - f.TrunkRows
		addTarget(l, row, f.Segments[owner[row]].Row, above[owner[row]])
	}
	return l, nil
}

func (m *Model) unknownToken(id int32) error {
	return fmt.Errorf("token id %d is not in the model's vocabulary of %d", id, m.Vocab)
}

// addTarget adds a target row: one that the last layer and the head compute. It sees the spans above its
// segment, the segment's rows from start up to it, and itself.
func addTarget(l *ops.Layout, row, start int, above []int32) {
	key := l.TrunkRows + row
	spans := addSpan(append([]int32(nil), above...), start, key)
	l.TargetGroups = append(l.TargetGroups,
		kernels.Group{Row: len(l.TargetRows), N: 1, Own: key, Spans: spans})
	l.TargetRows = append(l.TargetRows, int32(row))
}

// addSpan appends the rows from <= r < to, joined to the last span if they follow it.
func addSpan(spans []int32, from, to int) []int32 {
	if n := len(spans); n > 0 && spans[n-1] == int32(from) {
		spans[n-1] = int32(to)
		return spans
	}
	if from == to {
		return spans
	}
	return append(spans, int32(from), int32(to))
}
