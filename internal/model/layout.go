package model

import (
	"fmt"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// layout turns a forest into what the operators read: positions, and for every query which rows it sees.
func (m *Model) layout(f *batch.Forest) (*ops.Layout, error) {
	l := &ops.Layout{Above: f.Above, Prompts: f.Prompts, IDs: f.IDs, Pos: make([]int32, f.Rows())}
	owner := make([]int, f.Rows()) // the segment of each row
	above := make([][]int32, len(f.Segments))
	for i, s := range f.Segments {
		if last := s.Pos + s.Len; m.MaxPositions > 0 && last > m.MaxPositions {
			return nil, fmt.Errorf("a text is %d tokens long with its soft prompt, but the model has %d positions", last, m.MaxPositions)
		}
		if s.Row < f.Above {
			continue
		}
		row := s.Row - f.Above
		for k := range s.Len {
			owner[row+k], l.Pos[row+k] = i, int32(s.Pos+k)
		}
		for _, a := range f.Ancestors(i) {
			above[i] = addSpan(above[i], f.Segments[a].Row, f.Segments[a].Row+f.Segments[a].Len)
		}
		l.Groups = append(l.Groups, kernels.Group{Row: row, N: s.Len, Own: s.Row, Spans: above[i]})
	}
	for row, id := range f.IDs {
		if row >= f.Prompts && (id < 0 || int(id) >= m.Vocab) {
			return nil, fmt.Errorf("token id %d is not in the model's vocabulary of %d", id, m.Vocab)
		}
	}
	for _, t := range f.Targets {
		if t.ID < 0 || int(t.ID) >= m.Vocab {
			return nil, fmt.Errorf("token id %d is not in the model's vocabulary of %d", t.ID, m.Vocab)
		}
		l.TargetIDs = append(l.TargetIDs, t.ID)
		of := owner[t.Row-f.Above]
		ask(l, t.Row-f.Above, f.Segments[of].Row, above[of])
	}
	return l, nil
}

// ask makes a row one of those the last layer and the head work on. Among the keys it sees the spans above its segment, the segment's rows
// from start up to it, and itself.
func ask(l *ops.Layout, row, start int, above []int32) {
	spans := append([]int32(nil), above...)
	key := l.Above + row
	l.TargetGroups = append(l.TargetGroups, kernels.Group{Row: len(l.TargetRows), N: 1, Own: key, Spans: addSpan(spans, start, key)})
	l.TargetRows = append(l.TargetRows, int32(row))
}

// addSpan adds the rows from <= r < to, joined to the last span where they follow it.
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
