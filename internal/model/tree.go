package model

import (
	"fmt"
	"slices"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// tree is a text of which several continuations are scored. Its rows are added in any order, each after
// an earlier one; all of them lie on the same pages. A row sees the soft prompt, the stem, and the rows
// on the path to it.
type tree struct {
	prompt *prefix // nil: none
	stem   *tree   // a tree that it continues after its last row; nil: none
	node   *node
	pos    []int32   // of each row
	seen   [][]int32 // spans of each row and of those that it sees, in the cache
}

// NewTree begins a tree after a soft prompt, or after batch.NoPrompt. With a stem that is not 0, it
// continues that tree after its last row. Extend adds its rows.
func (d *Decoder) NewTree(prompt, stem int) (int, error) {
	t := &tree{node: &node{refs: 1}}
	if prompt != batch.NoPrompt {
		if t.prompt = d.prompts[prompt]; t.prompt == nil {
			return 0, fmt.Errorf("run %s: there is no soft prompt %d", d.m.Name, prompt)
		}
	}
	if stem != 0 {
		if t.stem = d.trees[stem]; t.stem == nil || len(t.stem.pos) == 0 || t.stem.prompt != t.prompt {
			return 0, fmt.Errorf("run %s: there is no tree %d with rows after the same prompt", d.m.Name, stem)
		}
	}
	d.last++
	d.trees[d.last] = t
	return d.last, nil
}

// RemoveTree frees the room of a tree. Trees that continue it must be removed before.
func (d *Decoder) RemoveTree(tree int) {
	d.release(d.trees[tree].node)
	delete(d.trees, tree)
}

// before returns the spans that a tree's first row sees, and its position.
func (d *Decoder) before(t *tree) (spans []int32, pos int32) {
	switch {
	case t.stem != nil:
		last := len(t.stem.pos) - 1
		return t.stem.seen[last], t.stem.pos[last] + 1
	case t.prompt != nil:
		return d.promptSpans(t.prompt, t.prompt.rows), int32(t.prompt.rows)
	}
	return nil, 0
}

// promptSpans returns the spans of a soft prompt's first rows in the cache.
func (d *Decoder) promptSpans(p *prefix, rows int) (spans []int32) {
	for i := range rows {
		at := d.row(p.node, i)
		spans = addSpan(spans, at, at+1)
	}
	return spans
}

// Extend adds rows to trees, all of them after a soft prompt or all without, and returns −log p of the
// tokens asked for, row after row. The result is valid until the next call. Where a row asks for one
// token, the number is that of Model.NLL, to the bit, whatever the other rows are. Of several, the last
// bits depend on which they are, because each is left out of the sum that it is compared with. After an
// error, remove the trees.
func (d *Decoder) Extend(rows []batch.Row) ([]float32, error) {
	l := &ops.Layout{}
	values, fresh, err := d.computePrompts(rows, l)
	if err == nil {
		err = d.addRows(rows, l)
	}
	var nll []float32
	if err == nil {
		nll, err = d.scores(l, values, d.trees[rows[0].Tree].prompt != nil)
	}
	if err != nil {
		d.forget(fresh)
		return nil, err
	}
	return nll, nil
}

// computePrompts adds the rows of the trees' soft prompts that are not cached to a layout, and returns
// their values.
func (d *Decoder) computePrompts(rows []batch.Row, l *ops.Layout) (values []float32, fresh []*prefix, err error) {
	for i, r := range rows {
		t := d.trees[r.Tree]
		if t == nil {
			return nil, fresh, fmt.Errorf("run %s: there is no tree %d", d.m.Name, r.Tree)
		}
		p := t.prompt
		if (p == nil) != (d.trees[rows[0].Tree].prompt == nil) {
			return nil, fresh, fmt.Errorf("run %s: row %d: trees with and without a soft prompt in one call",
				d.m.Name, i+1)
		}
		if p == nil || p.node != nil {
			continue
		}
		p.node = &node{refs: 1}
		fresh = append(fresh, p)
		d.pages.reserved -= pagesFor(p.rows)
		for k := range p.rows {
			row := d.grow(p.node)
			if k%pageRows == 0 {
				l.Groups = append(l.Groups, kernels.Group{
					Row: len(l.IDs), Own: row, Spans: d.promptSpans(p, k),
				})
			}
			l.Groups[len(l.Groups)-1].N++
			l.IDs, l.Pos = append(l.IDs, batch.NoToken), append(l.Pos, int32(k))
			l.CacheRows = append(l.CacheRows, int32(row))
		}
		values = append(values, p.values...)
	}
	l.Prompts = len(l.IDs)
	return values, fresh, nil
}

// forget marks soft prompts as not computed.
func (d *Decoder) forget(fresh []*prefix) {
	for _, p := range fresh {
		d.pages.reserved += len(p.node.pages)
		d.release(p.node)
		p.node = nil
	}
}

// addRows adds rows to their trees and to a layout.
func (d *Decoder) addRows(rows []batch.Row, l *ops.Layout) error {
	for i, r := range rows {
		t := d.trees[r.Tree]
		spans, pos := d.before(t)
		if r.Parent >= len(t.pos) {
			return fmt.Errorf("run %s: row %d follows row %d of a tree of %d rows", d.m.Name, i+1, r.Parent, len(t.pos))
		}
		if r.Parent >= 0 {
			spans, pos = t.seen[r.Parent], t.pos[r.Parent]+1
		}
		if d.m.MaxPositions > 0 && int(pos) >= d.m.MaxPositions {
			return fmt.Errorf("run %s: a text is %d tokens long with its soft prompt, but the model has %d positions",
				d.m.Name, pos+1, d.m.MaxPositions)
		}
		for _, id := range append(r.Asked[:len(r.Asked):len(r.Asked)], r.ID) {
			if id < 0 || int(id) >= d.m.Vocab {
				return fmt.Errorf("run %s: %w", d.m.Name, d.m.unknownToken(id))
			}
		}
		if t.node.rows == pageRows*len(t.node.pages) && d.pages.free() == 0 {
			return d.full("one more row", 1)
		}
		row, at := d.grow(t.node), len(l.IDs)
		last := len(l.Groups) - 1
		// A row after the last one of the call, on the same page, joins its group.
		if i > 0 && r.Tree == rows[i-1].Tree && r.Parent == len(t.pos)-1 && row == l.Groups[last].Own+l.Groups[last].N {
			l.Groups[last].N++
		} else {
			l.Groups = append(l.Groups, kernels.Group{Row: at, N: 1, Own: row, Spans: slices.Clone(spans)})
		}
		if len(r.Asked) > 0 {
			l.TargetGroups = append(l.TargetGroups, kernels.Group{
				Row: len(l.TargetRows), N: 1, Own: row, Spans: slices.Clone(spans),
			})
			l.TargetRows, l.Asked = append(l.TargetRows, int32(at)), append(l.Asked, r.Asked)
		}
		l.IDs, l.Pos = append(l.IDs, r.ID), append(l.Pos, pos)
		l.CacheRows = append(l.CacheRows, int32(row))
		t.pos, t.seen = append(t.pos, pos), append(t.seen, addSpan(slices.Clone(spans), row, row+1))
	}
	if l.TargetRows == nil {
		return fmt.Errorf("run %s: no token is asked for", d.m.Name)
	}
	return nil
}

// scores runs a layout with Asked. values are those of the layout's soft prompts; prompted tells whether
// the texts follow any.
func (d *Decoder) scores(l *ops.Layout, values []float32, prompted bool) ([]float32, error) {
	prompts := 0
	if prompted {
		prompts = 1
	}
	gr, err := d.m.graph(scoring, prompts)
	if err != nil {
		return nil, err
	}
	gr.Cache = d.cache
	if err := d.m.run(gr, values, l); err != nil {
		return nil, err
	}
	return gr.NLL, nil
}
