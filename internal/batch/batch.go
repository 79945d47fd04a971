// Package batch packs examples into one matrix of T rows without padding: the input of a model.
//
// The rows form segments, and the segments a forest. Soft prompts, and texts without one, are roots. A
// prefix that several texts share is a segment whose children are their continuations. The rest of each
// text is a leaf. A segment attends to all its ancestors and causally to itself; its positions continue
// its parent's. So a shared prefix is computed once.
package batch

import (
	"cmp"
	"slices"
)

// Segment is a soft prompt or a piece of text.
type Segment struct {
	Parent   int // index in Forest.Segments, lower than its own; -1: a root
	Row, Len int // its rows in the packed matrix
	Pos      int // the position of its first row
}

// Target is a token to predict.
type Target struct {
	Row int // the row before the token, which predicts it
	ID  int32
	Of  int // its example's index in Pack's argument
}

// Forest is a batch of B examples in T rows.
type Forest struct {
	// TrunkRows is 0 except in a part that Split made. There rows are numbered from the trunk's
	// first: the trunk's rows come before the part's own, and are not in IDs.
	TrunkRows int
	Prompts   int     // number of rows of soft prompts; they are the first rows
	IDs       []int32 // token of each row; NoToken at the rows of soft prompts
	Segments  []Segment
	Targets   []Target // by example, then by position
}

// NoToken is the id of a row that holds no token.
const NoToken = int32(-1)

// Rows returns the number of rows, T, without the trunk's.
func (f *Forest) Rows() int { return len(f.IDs) }

// Example is a text that follows a soft prompt.
type Example struct {
	Prompt int     // index of Pack's prompts; ignored if there are none
	IDs    []int32 // the whole text, at least one token
	From   int     // IDs[From:] are predicted
}

// minShared is the shortest shared prefix, in tokens, that gets a segment of its own. For a shorter one
// the overhead of a segment is as large as what it saves.
const minShared = 4

// Pack lays out examples after soft prompts with the given numbers of rows (none: no soft prompts).
// Prefixes that examples with the same prompt share become segments. Targets keep the order of the
// examples. The last token of an example predicts nothing, so it has no row.
func Pack(prompts []int, examples []Example) *Forest {
	f := &Forest{}
	for _, n := range prompts {
		f.Segments = append(f.Segments, Segment{Parent: -1, Row: f.Rows(), Len: n})
		for range n {
			f.IDs = append(f.IDs, NoToken)
		}
	}
	f.Prompts = f.Rows()
	p := &packer{
		forest: f, texts: make([][]int32, len(examples)), rows: make([][]int, len(examples)),
	}
	order := make([]int, len(examples))
	for i, e := range examples {
		order[i], p.texts[i] = i, e.IDs[:len(e.IDs)-1]
	}
	// In sorted order texts with a shared prefix are neighbours.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(examples[a].Prompt, examples[b].Prompt),
			slices.Compare(p.texts[a], p.texts[b]))
	})
	for len(order) > 0 {
		n, parent := len(order), -1 // order[:n] have the same parent
		if len(prompts) > 0 {
			parent = examples[order[0]].Prompt
			for n = 1; n < len(order) && examples[order[n]].Prompt == parent; n++ {
			}
		}
		p.add(order[:n], parent, 0)
		order = order[n:]
	}
	for i, e := range examples {
		for k := e.From; k < len(e.IDs); k++ {
			row := -1 // without a soft prompt there is no row before the first token
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

// add lays out texts, without their first `from` tokens, as descendants of parent. The texts are
// sorted, and equal in these tokens.
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
			p.add(order[:n], seg, shared)
		}
		order = order[n:]
	}
}

// segment adds a segment and returns its index.
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

// common returns the length of the longest common prefix. a must not come after b in sorted order, so a
// shorter b is not its prefix.
func common(a, b []int32) int {
	n := 0
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// Ancestors returns the indices of the ancestors of segment s, the root first.
func (f *Forest) Ancestors(s int) []int {
	var up []int
	for p := f.Segments[s].Parent; p >= 0; p = f.Segments[p].Parent {
		up = append(up, p)
	}
	slices.Reverse(up)
	return up
}
