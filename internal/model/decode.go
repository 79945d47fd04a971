package model

import (
	"fmt"
	"slices"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// Text is where a generation begins: token ids behind one of the decoder's soft prompts.
type Text struct {
	Prompt int // ignored by a decoder without soft prompts
	IDs    []int32
}

// Decoder generates from several texts at once. Keys and values of all rows so far lie in a cache; soft prompts and shared
// beginnings are in it once.
//
// The cache is a row of blocks: one for what the texts begin with, then one for every few tokens that all texts grow by. A block has
// the rows of each layer, in that those of each key head. So a text's rows follow each other in memory, and what is not
// reached is not touched.
type Decoder struct {
	m      *Model
	gr     *graph
	cache  []kernels.Matrix // of each layer: its rows of the first block, and what lies behind
	seqs   []sequence
	maxNew int
	step   int // tokens of a block
	block  int // rows of a block
}

// sequence is one text's place in the cache.
type sequence struct {
	seen []int32 // spans of the text's rows
	n    int     // tokens generated
	pos  int     // the next row's position
}

// row is where keys and values of a text's n-th new token lie, counted from a layer's and a head's first row.
func (d *Decoder) row(text, n int) int { return (1+n/d.step)*d.block + text*d.step + n%d.step }

// NewDecoder runs the texts behind soft prompts of the given numbers of rows (prompts holds all of them, [ΣP, D]) and returns
// the logits [texts, V] of what follows each. Up to maxNew tokens can be added to each text.
func (m *Model) NewDecoder(prompts []float32, rows []int, texts []Text, maxNew int) (*Decoder, [][]float32, error) {
	examples := make([]batch.Example, len(texts))
	for i, t := range texts {
		if len(t.IDs) == 0 && len(rows) == 0 {
			return nil, nil, fmt.Errorf("run %s: text %d is empty, and there is no soft prompt to begin with", m.Name, i+1)
		}
		// One target behind the last token: the row that predicts it is where generation begins.
		examples[i] = batch.Example{Prompt: t.Prompt, IDs: append(append([]int32(nil), t.IDs...), 0), From: len(t.IDs)}
	}
	f := batch.Pack(rows, examples)
	if len(prompts) != f.Prompts*m.Hidden {
		return nil, nil, fmt.Errorf("run %s: soft prompts have %d values, want %d rows of %d", m.Name, len(prompts), f.Prompts, m.Hidden)
	}
	l, err := m.layout(f)
	if err != nil {
		return nil, nil, err
	}
	gr, err := m.graph(decoding, f.Prompts)
	if err != nil {
		return nil, nil, err
	}
	d := &Decoder{m: m, gr: gr, maxNew: maxNew}
	for i, t := range f.Targets {
		g := l.TargetGroups[i]
		d.seqs = append(d.seqs, sequence{
			seen: addSpan(append([]int32(nil), g.Spans...), t.Row, t.Row+1),
			pos:  int(l.Pos[t.Row]) + 1,
		})
	}
	d.step = min(32, max(1, maxNew))
	keys := m.Heads.KV * max(f.Rows(), len(texts)*d.step) // rows of a layer in a block
	d.block = m.Layers() * keys
	wide := 2 * m.Heads.Dim
	blocks := 2 + (maxNew-1)/d.step
	if gb := float64(blocks) * float64(d.block) * float64(wide) * 4 / 1e9; gb > 1000 {
		return nil, nil, fmt.Errorf("run %s: %d tokens more for each of %d texts want room for %.0f GB of keys and values, 1,000 at most: ask for fewer", m.Name, maxNew, len(texts), gb)
	}
	values := blocks * d.block * wide
	room, _ := kernels.Reserve(d, values)
	if room == nil {
		room = kernels.Floats(values)
	}
	for layer := range m.Layers() {
		d.cache = append(d.cache, kernels.Matrix{Rows: keys, Cols: wide, Stride: wide, Data: room[layer*keys*wide:]})
	}
	l.CacheRows = make([]int32, f.Rows())
	for i := range l.CacheRows {
		l.CacheRows[i] = int32(i)
	}
	logits, err := d.run(prompts, l)
	return d, logits, err
}

// RowsAtOnce is how many tokens take little longer than one: the weights are read once for all of them.
const RowsAtOnce = 4

// Next adds tokens to each of the texts named and returns the logits [tokens, V] of what follows each token, text after text. They are
// valid until the next call, and the same to the bit whether up to RowsAtOnce tokens come at once or one after the other.
func (d *Decoder) Next(texts []int, ids [][]int32) ([][]float32, error) {
	l := &ops.Layout{}
	for i, text := range texts {
		if n := d.Room(text); n < len(ids[i]) {
			return nil, fmt.Errorf("run %s: no room for %d tokens more, only for %d", d.m.Name, len(ids[i]), n)
		}
		q := &d.seqs[text]
		for _, id := range ids[i] {
			if id < 0 || int(id) >= d.m.Vocab {
				return nil, fmt.Errorf("run %s: token id %d is not in the vocabulary of %d", d.m.Name, id, d.m.Vocab)
			}
			row, at := d.row(text, q.n), len(l.IDs)
			l.Groups = append(l.Groups, kernels.Group{Row: at, N: 1, Own: row, Spans: slices.Clone(q.seen)})
			l.IDs, l.Pos = append(l.IDs, id), append(l.Pos, int32(q.pos))
			l.TargetRows, l.CacheRows = append(l.TargetRows, int32(at)), append(l.CacheRows, int32(row))
			q.seen = addSpan(q.seen, row, row+1)
			q.n++
			q.pos++
		}
	}
	l.TargetGroups = l.Groups
	return d.run(nil, l)
}

// Drop takes back the last n tokens that Next added to a text.
func (d *Decoder) Drop(text, n int) {
	q := &d.seqs[text]
	for range n {
		last := len(q.seen) - 1
		if q.seen[last]--; q.seen[last] == q.seen[last-1] {
			q.seen = q.seen[:last-1]
		}
		q.n--
		q.pos--
	}
}

// Room is how many tokens can be added to a text.
func (d *Decoder) Room(text int) int {
	q := &d.seqs[text]
	n := d.maxNew - q.n
	if d.m.MaxPositions > 0 {
		n = min(n, d.m.MaxPositions-q.pos)
	}
	return n
}

func (d *Decoder) run(prompts []float32, l *ops.Layout) ([][]float32, error) {
	d.gr.Cache = d.cache
	if err := d.m.run(d.gr, prompts, l); err != nil {
		return nil, err
	}
	logits := ops.Value(d.gr.logits)
	rows := make([][]float32, logits.Rows)
	for i := range rows {
		rows[i] = logits.Row(i)
	}
	return rows, nil
}
