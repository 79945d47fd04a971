// Package batch is the packed forest: what data makes and the model eats. One matrix of T rows holds a whole batch with no
// padding. Its pieces are segments in a tree: soft prompts and texts without one are roots, a text that several rows begin
// with is a segment they hang from, each row's own rest is a leaf. A segment attends to all its ancestors and causally to
// itself, and its positions follow its parent's last. What is shared is computed once.
package batch

import (
	"cmp"
	"slices"
)

// Segment is a piece of text or a soft prompt.
type Segment struct {
	Parent   int // in Forest.Segments, before this one; -1 for a root
	Row, Len int // its rows in the packed matrix
	Pos      int // the position of its first row
}

// Target is a token to predict from a row, the one before it.
type Target struct {
	Row int
	ID  int32
	Of  int // the example it belongs to, as Pack was given them
}

// Forest is a batch of B examples in T rows.
type Forest struct {
	Above    int     // rows that segments are numbered with but that are another forest's, the trunk's: 0 but in a part that Cut made
	Prompts  int     // the first rows hold the soft prompts, one behind the other
	IDs      []int32 // the token of each row; NoToken at the rows of soft prompts
	Segments []Segment
	Targets  []Target // by example, then by place in it
}

// NoToken stands where a row holds no token.
const NoToken = int32(-1)

// Rows is the number of rows, T, without those above.
func (f *Forest) Rows() int { return len(f.IDs) }

// Example is a text with the soft prompt it stands behind.
type Example struct {
	Prompt int     // which of Pack's prompts; ignored where there is none
	IDs    []int32 // the whole text, at least one token
	From   int     // IDs[From:] are predicted
}

// minShared is the shortest common beginning that gets a segment of its own: below it the book-keeping costs what it saves.
const minShared = 4

// Pack lays out examples behind soft prompts of the given numbers of rows (none: no soft prompt). Beginnings that examples
// with the same prompt share become segments; targets keep the order of the examples. The last token of an example is only
// ever predicted: nothing follows from it, so it has no row.
func Pack(prompts []int, examples []Example) *Forest {
	f := &Forest{}
	for _, n := range prompts {
		f.Segments = append(f.Segments, Segment{Parent: -1, Row: f.Rows(), Len: n})
		for range n {
			f.IDs = append(f.IDs, NoToken)
		}
	}
	f.Prompts = f.Rows()
	p := &packer{forest: f, texts: make([][]int32, len(examples)), rows: make([][]int, len(examples))}
	order := make([]int, len(examples))
	for i, e := range examples {
		order[i], p.texts[i] = i, e.IDs[:len(e.IDs)-1]
	}
	// Examples that begin alike stand together in sorted order.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(examples[a].Prompt, examples[b].Prompt), slices.Compare(p.texts[a], p.texts[b]))
	})
	for len(order) > 0 {
		n, parent := 1, -1
		for n < len(order) && (len(prompts) == 0 || examples[order[n]].Prompt == examples[order[0]].Prompt) {
			n++
		}
		if len(prompts) > 0 {
			parent = examples[order[0]].Prompt
		}
		p.add(order[:n], parent, 0)
		order = order[n:]
	}
	for i, e := range examples {
		for k := e.From; k < len(e.IDs); k++ {
			row := -1 // nothing stands before the first token
			switch {
			case k > 0:
				row = p.rows[i][k-1]
			case len(prompts) > 0:
				s := f.Segments[e.Prompt]
				row = s.Row + s.Len - 1
			}
			if row >= 0 {
				f.Targets = append(f.Targets, Target{Row: row, ID: e.IDs[k], Of: i})
			}
		}
	}
	return f
}

type packer struct {
	forest *Forest
	texts  [][]int32
	rows   [][]int // the row of each token of each text
}

// add lays out what lies behind the first `from` tokens of texts, sorted and alike up to there, below parent.
func (p *packer) add(order []int, parent, from int) {
	for len(order) > 0 {
		ids := p.texts[order[0]]
		n, shared := 1, len(ids) // order[:n] share ids[from:shared]
		for n < len(order) {
			c := common(ids, p.texts[order[n]])
			if c-from < minShared {
				break
			}
			shared = min(shared, c)
			n++
		}
		seg := parent
		if shared > from {
			seg = p.segment(ids[from:shared], parent)
		}
		for _, e := range order[:n] {
			for k := from; k < shared; k++ {
				p.rows[e] = append(p.rows[e], p.forest.Segments[seg].Row+k-from)
			}
		}
		if n > 1 {
			rest := order[:n]
			for len(rest) > 0 && len(p.texts[rest[0]]) == shared {
				rest = rest[1:] // ends where the segment does
			}
			p.add(rest, seg, shared)
		}
		order = order[n:]
	}
}

func (p *packer) segment(ids []int32, parent int) int {
	f := p.forest
	s := Segment{Parent: parent, Row: f.Rows(), Len: len(ids)}
	if parent >= 0 {
		s.Pos = f.Segments[parent].Pos + f.Segments[parent].Len
	}
	f.IDs = append(f.IDs, ids...)
	f.Segments = append(f.Segments, s)
	return len(f.Segments) - 1
}

func common(a, b []int32) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// Ancestors are the segments above s, the root first.
func (f *Forest) Ancestors(s int) []int {
	var up []int
	for p := f.Segments[s].Parent; p >= 0; p = f.Segments[p].Parent {
		up = append(up, p)
	}
	slices.Reverse(up)
	return up
}
