package model

import (
	"fmt"
	"slices"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// Decoder continues many texts at once, each after its own soft prompt or none. Texts can be added
// and removed between any two steps. Keys and values are cached. Those of a soft prompt are stored
// once, until RemovePrompt. Those of a prefix that texts of one Add share are stored once, until the
// last of these texts is removed.
//
// A text's logits are the same to the bit as those of the text alone (Model.Logits): whatever other
// texts a call computes, in however many calls the text's tokens are added, and wherever its rows lie
// in the cache. They do not depend on the number of threads either.
type Decoder struct {
	m           *Model
	cache       []kernels.Matrix // of each layer, as ops.Graph has it
	pages       pages
	biasDiffers bool // attention biases differ without a soft prompt (falcon-rw)
	prompts     map[int]*prefix
	seqs        map[int]*sequence
	trees       map[int]*tree
	last        int // the latest handle
}

// prefix is a registered soft prompt. Its rows are computed by the first Add that needs them.
type prefix struct {
	values []float32 // [P, D]
	rows   int
	node   *node // nil before that
}

// node is rows that follow each other in a text: those of a soft prompt, of a beginning that texts
// share, or of a text's own rest.
type node struct {
	pages []int32
	rows  int
	refs  int // texts that contain it; a registered prompt counts as one
}

// sequence is a text being continued.
type sequence struct {
	path     []*node // its rows, the own ones last
	own      *node   // where it grows
	seen     []int32 // spans of all its rows in the cache
	pos      int     // the next row's position
	n        int     // tokens added by Next
	most     int     // of them
	reserved int     // pages that own may still take
	prompted bool
}

// NoCacheLimit is a limit, in bytes, that no cache reaches.
const NoCacheLimit = 1e12

// NewDecoder returns a decoder whose cache takes at most limit bytes. Memory is used only for what
// is cached.
func (m *Model) NewDecoder(limit int64) *Decoder {
	d := &Decoder{m: m, prompts: map[int]*prefix{}, seqs: map[int]*sequence{}, trees: map[int]*tree{}}
	layers, heads := m.Layers(), m.Heads
	for _, b := range m.Blocks {
		d.biasDiffers = d.biasDiffers || b.Attn.NoPromptBias != nil
	}
	d.pages = pages{stride: layers * heads.KV * pageRows, width: 2 * heads.Dim}
	d.pages.open(d, limit)
	d.cache = make([]kernels.Matrix, layers)
	d.view()
	return d
}

// Close gives the cache's memory back at once; without it, that happens when d is garbage.
func (d *Decoder) Close() { d.pages.close() }

// view points the layers' matrices at the pages.
func (d *Decoder) view() {
	rows := d.pages.stride / len(d.cache)
	for i := range d.cache {
		d.cache[i] = kernels.Matrix{Rows: rows, Cols: d.pages.width, Stride: d.pages.width,
			Data: d.pages.values[min(len(d.pages.values), i*rows*d.pages.width):]}
	}
}

// AddPrompt registers a soft prompt of [P, D] values, which must not change, and returns its handle.
// Room for its keys and values is kept until RemovePrompt.
func (d *Decoder) AddPrompt(values []float32) (int, error) {
	p := &prefix{values: values, rows: len(values) / d.m.Hidden}
	if p.rows == 0 || len(values)%d.m.Hidden != 0 {
		return 0, fmt.Errorf("run %s: a soft prompt has %d values, want rows of %d",
			d.m.Name, len(values), d.m.Hidden)
	}
	if need := pagesFor(p.rows); need > d.pages.free() {
		return 0, d.full(fmt.Sprintf("a soft prompt of %d rows needs", p.rows), need)
	}
	d.pages.reserved += pagesFor(p.rows)
	d.last++
	d.prompts[d.last] = p
	return d.last, nil
}

// RemovePrompt forgets a soft prompt. Texts that follow it are not affected.
func (d *Decoder) RemovePrompt(prompt int) {
	p := d.prompts[prompt]
	delete(d.prompts, prompt)
	if p.node == nil {
		d.pages.reserved -= pagesFor(p.rows)
		return
	}
	d.release(p.node)
}

// full is the error of a request for more pages than are free.
func (d *Decoder) full(needs string, pages int) error {
	gb := func(pages int) float64 { return float64(pages) * float64(d.pages.bytes()) / 1e9 }
	return fmt.Errorf("run %s: %w: %s %.3g GB, but %.3g GB of %.3g GB are free: "+
		"ask for fewer or shorter ones",
		d.m.Name, batch.ErrFull, needs, gb(pages), gb(d.pages.free()), gb(d.pages.most))
}

// fullOfTexts is full for n texts.
func (d *Decoder) fullOfTexts(n, pages int) error {
	if n == 1 {
		return d.full("1 more text needs", pages)
	}
	return d.full(fmt.Sprintf("%d more texts need", n), pages)
}

// atLeast returns a lower limit of the pages that texts need: those for what they grow by.
func (d *Decoder) atLeast(texts []batch.Text) (need int) {
	for _, t := range texts {
		rows := len(t.IDs)
		if p := d.prompts[t.Prompt]; p != nil {
			rows += p.rows
		}
		need += pagesFor(growth(t, rows, d.m.MaxPositions))
	}
	return need
}

// growth returns how many tokens Next may add to a text that has rows rows with its soft prompt.
func growth(t batch.Text, rows, positions int) int {
	most := min(max(0, t.Room), 1<<50)
	if positions > 0 {
		most = min(most, max(0, positions-rows))
	}
	return most
}

// addition is texts packed for Add.
type addition struct {
	forest *batch.Forest
	layout *ops.Layout // in the forest's rows
	roots  []*prefix   // of the forest's first segments
	cached []bool      // of each root: its rows are not computed
	ends   []int       // the segment in which each text ends
	own    []bool      // of each text: nothing but it is in that segment
	most   []int       // of each text: tokens that Next may add
	need   int         // pages, without those that are reserved for the prompts
}

// pack lays out texts that all follow a soft prompt, or none of which does.
func (d *Decoder) pack(texts []batch.Text) (*addition, error) {
	a := &addition{}
	examples := make([]batch.Example, len(texts))
	number, needsLastRow := map[int]int{}, map[int]bool{}
	var rows []int
	for i, t := range texts {
		if t.Prompt == batch.NoPrompt && len(t.IDs) == 0 {
			return nil, fmt.Errorf("run %s: text %d is empty and has no soft prompt", d.m.Name, i+1)
		}
		if (t.Prompt == batch.NoPrompt) != (texts[0].Prompt == batch.NoPrompt) {
			return nil, fmt.Errorf("run %s: text %d: texts with and without a soft prompt in one call",
				d.m.Name, i+1)
		}
		if _, ok := number[t.Prompt]; !ok && t.Prompt != batch.NoPrompt {
			p := d.prompts[t.Prompt]
			if p == nil {
				return nil, fmt.Errorf("run %s: text %d: there is no soft prompt %d",
					d.m.Name, i+1, t.Prompt)
			}
			number[t.Prompt] = len(rows)
			rows, a.roots = append(rows, p.rows), append(a.roots, p)
			a.cached = append(a.cached, p.node != nil)
		}
		if len(t.IDs) == 0 {
			needsLastRow[number[t.Prompt]] = true
		}
		// One target after the last token: its row is the one whose logits are returned.
		ids := append(slices.Clone(t.IDs), 0)
		examples[i] = batch.Example{Prompt: number[t.Prompt], IDs: ids, From: len(t.IDs)}
	}
	a.forest = batch.Pack(rows, examples)
	var err error
	if a.layout, err = d.m.layout(a.forest); err != nil {
		return nil, fmt.Errorf("run %s: %w", d.m.Name, err)
	}
	// The logits of these prompts' last rows are wanted: compute them a second time.
	for i := range needsLastRow {
		if a.cached[i] {
			a.cached[i] = false
			a.need += pagesFor(rows[i])
		}
	}
	a.count(texts, d.m.MaxPositions)
	return a, nil
}

// count finds where the texts end, which segments are one text's own, and the pages that all need.
func (a *addition) count(texts []batch.Text, positions int) {
	segment := make([]int, a.forest.Rows())
	users := make([]int, len(a.forest.Segments)) // texts that end in it and segments after it
	for i, s := range a.forest.Segments {
		for k := range s.Len {
			segment[s.Row+k] = i
		}
		if s.Parent >= 0 {
			users[s.Parent]++
		}
		if i >= len(a.roots) {
			a.need += pagesFor(s.Len)
		}
	}
	for _, t := range a.forest.Targets {
		a.ends = append(a.ends, segment[t.Row])
		users[segment[t.Row]]++
	}
	for i, t := range a.forest.Targets {
		most, end := growth(texts[i], int(a.layout.Pos[t.Row])+1, positions), a.ends[i]
		own := end >= len(a.roots) && users[end] == 1
		a.most, a.own = append(a.most, most), append(a.own, own)
		if n := a.forest.Segments[end].Len; own {
			a.need += pagesFor(n+most) - pagesFor(n)
		} else {
			a.need += pagesFor(most)
		}
	}
}

// Check returns the error with which Add would refuse the text even if the cache were empty.
func (d *Decoder) Check(t batch.Text) error {
	a, err := d.pack([]batch.Text{t})
	if err == nil && a.need > d.pages.most {
		err = d.fullOfTexts(1, a.need)
	}
	return err
}

// Add begins texts, all of them after a soft prompt or all without. It returns a handle for each and
// the logits [texts, V] of what follows it, valid until the next call. Pages for all tokens that a
// text will grow by are reserved for it, so Next does not run out of them. If there are too few, the
// error wraps batch.ErrFull, and nothing has changed.
func (d *Decoder) Add(texts []batch.Text) (seqs []int, logits [][]float32, err error) {
	if len(texts) > 1 { // a long queue does not fit: find out without packing it
		if need := d.atLeast(texts); need > d.pages.free() {
			return nil, nil, d.fullOfTexts(len(texts), need)
		}
	}
	a, err := d.pack(texts)
	if err != nil {
		return nil, nil, err
	}
	if a.need > d.pages.free() {
		return nil, nil, d.fullOfTexts(len(texts), a.need)
	}
	var fresh []*prefix // soft prompts that this pass computes
	for _, p := range a.roots {
		if p.node == nil {
			fresh = append(fresh, p)
		}
	}
	nodes := d.nodes(a)
	at := d.places(a, nodes)
	pass, values := a.pass(at)
	logits, err = d.run(pass, values, len(a.roots) > 0)
	for i := range texts {
		d.last++
		seqs = append(seqs, d.last)
		d.seqs[d.last] = d.sequence(a, i, nodes, at)
	}
	for _, n := range nodes { // what only this function still holds
		d.release(n)
	}
	if err != nil {
		for _, s := range seqs {
			d.Remove(s)
		}
		d.forget(fresh)
		return nil, nil, err
	}
	return seqs, logits, nil
}

// nodes returns the rows of each segment in the cache, each with one reference for the caller.
func (d *Decoder) nodes(a *addition) []*node {
	nodes := make([]*node, len(a.forest.Segments))
	for i, s := range a.forest.Segments {
		if i < len(a.roots) && a.cached[i] {
			nodes[i] = a.roots[i].node
			nodes[i].refs++
			continue
		}
		n := &node{refs: 1}
		for range s.Len {
			d.grow(n)
		}
		if nodes[i] = n; i < len(a.roots) && a.roots[i].node == nil {
			d.pages.reserved -= len(n.pages)
			a.roots[i].node = n
			n.refs++
		}
	}
	return nodes
}

// sequence returns text i of an addition. at is the cache row of each of the forest's rows.
func (d *Decoder) sequence(a *addition, i int, nodes []*node, at []int32) *sequence {
	q := &sequence{most: a.most[i], prompted: len(a.roots) > 0, own: &node{}}
	t, end := a.forest.Targets[i], a.ends[i]
	q.seen = place(at, a.layout.TargetGroups[i].Spans)
	q.seen = addSpan(q.seen, int(at[t.Row]), int(at[t.Row])+1)
	q.pos = int(a.layout.Pos[t.Row]) + 1
	for _, s := range append(a.forest.Ancestors(end), end) {
		q.path = append(q.path, nodes[s])
	}
	if a.own[i] {
		q.own = nodes[end]
	} else {
		q.path = append(q.path, q.own)
	}
	for _, n := range q.path {
		n.refs++
	}
	q.reserved = pagesFor(q.own.rows+q.most) - len(q.own.pages)
	d.pages.reserved += q.reserved
	return q
}

// places returns the cache row of each of a forest's rows.
func (d *Decoder) places(a *addition, nodes []*node) []int32 {
	at := make([]int32, a.forest.Rows())
	for i, s := range a.forest.Segments {
		for k := range s.Len {
			at[s.Row+k] = int32(d.row(nodes[i], k))
		}
	}
	return at
}

// pass returns the layout of the rows that are not cached yet and the values of the soft prompts among
// them. at is the cache row of each of the forest's rows.
func (a *addition) pass(at []int32) (l *ops.Layout, values []float32) {
	row := make([]int, a.forest.Rows()) // in the pass; -1 if cached
	l = &ops.Layout{}
	for i, s := range a.forest.Segments {
		cached := i < len(a.roots) && a.cached[i]
		if i < len(a.roots) && !cached {
			values = append(values, a.roots[i].values...)
			l.Prompts += s.Len
		}
		for r := s.Row; r < s.Row+s.Len; r++ {
			if row[r] = -1; !cached {
				row[r] = len(l.IDs)
				l.IDs, l.Pos = append(l.IDs, a.forest.IDs[r]), append(l.Pos, a.layout.Pos[r])
				l.CacheRows = append(l.CacheRows, at[r])
			}
		}
	}
	for _, g := range a.layout.Groups {
		if row[g.Row] < 0 {
			continue
		}
		spans := place(at, g.Spans)
		for k := 0; k < g.N; k += pageRows {
			n, own := min(pageRows, g.N-k), int(at[g.Own+k])
			l.Groups = append(l.Groups, kernels.Group{
				Row: row[g.Row+k], N: n, Own: own, Spans: slices.Clone(spans),
			})
			spans = addSpan(spans, own, own+n)
		}
	}
	for i, g := range a.layout.TargetGroups {
		g.Own, g.Spans = int(at[g.Own]), place(at, g.Spans)
		l.TargetGroups = append(l.TargetGroups, g)
		l.TargetRows = append(l.TargetRows, int32(row[a.layout.TargetRows[i]]))
	}
	return l, values
}

// place turns spans of a forest's rows into spans of cache rows.
func place(at, spans []int32) (placed []int32) {
	for i := 0; i < len(spans); i += 2 {
		for _, r := range at[spans[i]:spans[i+1]] {
			placed = addSpan(placed, int(r), int(r)+1)
		}
	}
	return placed
}

// RowsAtOnce is the number of rows that take little longer than one, because the weights are read once
// for all of them.
const RowsAtOnce = 4

// Next adds tokens to each of the texts and returns the logits [tokens, V] of what follows each
// token, text after text. They are valid until the next call. After an error of the model, remove the
// texts: they may have grown by rows that were not computed.
func (d *Decoder) Next(seqs []int, ids [][]int32) ([][]float32, error) {
	return d.more(seqs, ids, false)
}

// Read adds tokens to each of the texts, as Next does, but returns only the logits [texts, V] of what
// follows the last token of each.
func (d *Decoder) Read(seqs []int, ids [][]int32) ([][]float32, error) {
	return d.more(seqs, ids, true)
}

// more is Next or, with onlyLast, Read.
func (d *Decoder) more(seqs []int, ids [][]int32, onlyLast bool) ([][]float32, error) {
	for i, s := range seqs {
		if d.seqs[s] == nil {
			return nil, fmt.Errorf("run %s: there is no text %d", d.m.Name, s)
		}
		if n := d.Room(s); n < len(ids[i]) {
			return nil, fmt.Errorf("run %s: %d more tokens for a text with room for %d",
				d.m.Name, len(ids[i]), n)
		}
		for _, id := range ids[i] {
			if id < 0 || int(id) >= d.m.Vocab {
				return nil, fmt.Errorf("run %s: token id %d is not in the vocabulary of %d",
					d.m.Name, id, d.m.Vocab)
			}
		}
	}
	var logits [][]float32
	for _, prompted := range []bool{true, false} {
		var l ops.Layout
		var to []int // where the logits of each target go
		done := 0
		for i, s := range seqs {
			n := len(ids[i])
			if onlyLast {
				n = 1
			}
			q := d.seqs[s]
			if d.biasDiffers && q.prompted == prompted || !d.biasDiffers && prompted {
				d.extend(q, &l, ids[i], onlyLast)
				for k := range n {
					to = append(to, done+k)
				}
			}
			done += n
		}
		if to == nil {
			continue
		}
		got, err := d.run(&l, nil, prompted)
		if err != nil {
			return nil, err
		}
		if logits == nil {
			logits = make([][]float32, done)
		}
		for i, k := range to {
			logits[k] = got[i]
		}
	}
	return logits, nil
}

// extend adds rows for tokens to a text and to the layout. The logits of each, or onlyLast those of the
// last, are computed.
func (d *Decoder) extend(q *sequence, l *ops.Layout, ids []int32, onlyLast bool) {
	for i, id := range ids {
		had := len(q.own.pages)
		row, at := d.grow(q.own), len(l.IDs)
		taken := len(q.own.pages) - had
		q.reserved, d.pages.reserved = q.reserved-taken, d.pages.reserved-taken
		group := kernels.Group{Row: at, N: 1, Own: row, Spans: slices.Clone(q.seen)}
		// Rows that follow each other on a page are a group, as in Add.
		if last := len(l.Groups) - 1; onlyLast && i > 0 && taken == 0 {
			l.Groups[last].N++
		} else {
			l.Groups = append(l.Groups, group)
		}
		if !onlyLast || i == len(ids)-1 {
			group.Row = len(l.TargetRows)
			l.TargetGroups = append(l.TargetGroups, group)
			l.TargetRows = append(l.TargetRows, int32(at))
		}
		l.IDs, l.Pos = append(l.IDs, id), append(l.Pos, int32(q.pos))
		l.CacheRows = append(l.CacheRows, int32(row))
		q.seen = addSpan(q.seen, row, row+1)
		q.n++
		q.pos++
	}
}

// Drop takes back the last n tokens that Next added to a text.
func (d *Decoder) Drop(seq, n int) {
	q := d.seqs[seq]
	for range n {
		last := len(q.seen) - 1
		if q.seen[last]--; q.seen[last] == q.seen[last-1] {
			q.seen = q.seen[:last-1]
		}
		q.own.rows--
		q.n--
		q.pos--
	}
}

// Room returns how many tokens can be added to a text.
func (d *Decoder) Room(seq int) int { return d.seqs[seq].most - d.seqs[seq].n }

// Remove ends a text and frees its part of the cache.
func (d *Decoder) Remove(seq int) {
	q := d.seqs[seq]
	delete(d.seqs, seq)
	d.pages.reserved -= q.reserved
	for _, n := range q.path {
		d.release(n)
	}
}

// Bytes returns the size of the cache's pages in use or reserved, and of all.
func (d *Decoder) Bytes() (used, limit int64) {
	page := int64(d.pages.bytes())
	return int64(d.pages.most-d.pages.free()) * page, int64(d.pages.most) * page
}

// TokenBytes returns the size of a token's keys and values.
func (d *Decoder) TokenBytes() int64 { return int64(d.pages.bytes() / pageRows) }

// row returns the cache row of a node's i-th row, counted from the first row of a layer and a head.
func (d *Decoder) row(n *node, i int) int {
	return int(n.pages[i/pageRows])*d.pages.stride + i%pageRows
}

// grow adds a row to a node and returns its cache row.
func (d *Decoder) grow(n *node) int {
	if n.rows == pageRows*len(n.pages) {
		page, moved := d.pages.take()
		if moved {
			d.view()
		}
		n.pages = append(n.pages, page)
	}
	n.rows++
	return d.row(n, n.rows-1)
}

// release drops a reference to a node.
func (d *Decoder) release(n *node) {
	if n.refs--; n.refs == 0 {
		d.pages.give(n.pages)
	}
}

// run computes the logits of a layout's target rows with the cache. values are those of the layout's
// soft prompts; prompted tells whether the texts follow any.
func (d *Decoder) run(l *ops.Layout, values []float32, prompted bool) ([][]float32, error) {
	prompts := 0
	if prompted {
		prompts = 1
	}
	gr, err := d.m.graph(decoding, prompts)
	if err != nil {
		return nil, err
	}
	gr.Cache = d.cache
	if err := d.m.run(gr, values, l); err != nil {
		return nil, err
	}
	logits := ops.Value(gr.logits)
	rows := make([][]float32, logits.Rows)
	for i := range rows {
		rows[i] = logits.Row(i)
	}
	return rows, nil
}
