package batch_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
	"ptune/internal/batch"
)

// read returns the tokens that a row sees, itself included, and its position, by walking the tree.
func read(f *batch.Forest, row int) (seen []int32, pos int) {
	for s, seg := range f.Segments {
		if row < seg.Row || row >= seg.Row+seg.Len {
			continue
		}
		for _, a := range f.Ancestors(s) {
			seen = append(seen, f.IDs[f.Segments[a].Row:f.Segments[a].Row+f.Segments[a].Len]...)
		}
		return append(seen, f.IDs[seg.Row:row+1]...), seg.Pos + row - seg.Row
	}
	return nil, -1
}

func TestEveryTargetSeesItsPromptAndExactlyTheTokensBeforeIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int32Range(0, 1) // few ids, so that prefixes are often shared
		prompts := rapid.SliceOfN(rapid.IntRange(1, 3), 0, 3).Draw(t, "prompts")
		var examples []batch.Example
		for range rapid.IntRange(1, 8).Draw(t, "examples") {
			e := batch.Example{IDs: rapid.SliceOfN(id, 1, 12).Draw(t, "ids")}
			e.From = rapid.IntRange(0, len(e.IDs)-1).Draw(t, "from")
			if len(prompts) > 0 {
				e.Prompt = rapid.IntRange(0, len(prompts)-1).Draw(t, "prompt")
			} else {
				e.From = max(1, e.From)
			}
			examples = append(examples, e)
		}
		f := batch.Pack(prompts, examples)
		next := 0
		for i, e := range examples {
			p := 0
			if len(prompts) > 0 {
				p = prompts[e.Prompt]
			}
			for k := e.From; k < len(e.IDs); k++ {
				if next >= len(f.Targets) {
					t.Fatalf("%d targets, want more", len(f.Targets))
				}
				target := f.Targets[next]
				next++
				want := append(slices.Repeat([]int32{batch.NoToken}, p), e.IDs[:k]...)
				seen, pos := read(f, target.Row)
				if target.Of != i || target.ID != e.IDs[k] || !slices.Equal(seen, want) ||
					pos != len(want)-1 {
					t.Fatalf("target %d of example %d (%v) sees %v at position %d, want %v",
						k, i, target, seen, pos, want)
				}
			}
		}
		if next != len(f.Targets) {
			t.Fatalf("%d targets, want %d", len(f.Targets), next)
		}
	})
}

func TestSharedPrefixesAreLaidOutOnce(t *testing.T) {
	a := []int32{1, 2, 3, 4, 5, 6}
	f := batch.Pack([]int{2}, []batch.Example{
		{IDs: append(slices.Clone(a), 7), From: 6}, {IDs: append(slices.Clone(a), 8), From: 6},
		{IDs: []int32{9, 1}, From: 1},
	})
	if got, want := f.Rows(), 2+6+1; got != want {
		t.Errorf("%d rows, want %d: the six shared tokens once", got, want)
	}
	if f.Targets[0].Row != f.Targets[1].Row {
		t.Errorf("targets of the two leaves are predicted from rows %d and %d, want one shared row",
			f.Targets[0].Row, f.Targets[1].Row)
	}
}

func TestTheLayoutOfAForest(t *testing.T) {
	const no = batch.NoToken
	for name, c := range map[string]struct {
		prompts  []int
		examples []batch.Example
		ids      []int32
		segments []batch.Segment
		targets  []batch.Target
	}{
		"four shared tokens are a segment, three are not": {
			[]int{2},
			[]batch.Example{
				{IDs: []int32{1, 2, 3, 9, 1}, From: 4},
				{IDs: []int32{1, 2, 3, 4, 5, 6}, From: 5}, {IDs: []int32{1, 2, 3, 4, 7, 8}, From: 4},
			},
			[]int32{no, no, 1, 2, 3, 4, 5, 7, 1, 2, 3, 9},
			[]batch.Segment{{-1, 0, 2, 0}, {0, 2, 4, 2}, {1, 6, 1, 6}, {1, 7, 1, 6}, {0, 8, 4, 2}},
			[]batch.Target{{11, 1, 0}, {6, 6, 1}, {5, 7, 2}, {7, 8, 2}},
		},
		"a text that ends with what it shares has no leaf": {
			nil,
			[]batch.Example{{IDs: []int32{1, 2, 3, 4, 5, 6}, From: 5}, {IDs: []int32{1, 2, 3, 4, 9}, From: 4}},
			[]int32{1, 2, 3, 4, 5},
			[]batch.Segment{{-1, 0, 4, 0}, {0, 4, 1, 4}},
			[]batch.Target{{4, 6, 0}, {3, 9, 1}},
		},
		"a prompt predicts the only token of a text": {
			[]int{3, 1}, []batch.Example{{Prompt: 1, IDs: []int32{5}}, {Prompt: 0, IDs: []int32{6}}},
			[]int32{no, no, no, no}, []batch.Segment{{-1, 0, 3, 0}, {-1, 3, 1, 0}},
			[]batch.Target{{3, 5, 0}, {2, 6, 1}},
		},
		"without a prompt nothing predicts the first token": {
			nil, []batch.Example{{IDs: []int32{1, 2}}, {IDs: []int32{3}}},
			[]int32{1}, []batch.Segment{{-1, 0, 1, 0}}, []batch.Target{{0, 2, 0}},
		},
	} {
		f := batch.Pack(c.prompts, c.examples)
		if !slices.Equal(f.IDs, c.ids) || !slices.Equal(f.Segments, c.segments) ||
			!slices.Equal(f.Targets, c.targets) {
			t.Errorf("%s:\n%v %+v %+v, want\n%v %+v %+v", name, f.IDs, f.Segments, f.Targets,
				c.ids, c.segments, c.targets)
		}
	}
}

// There are ⌈rows/limit⌉ parts of equal size, and a leaf is in the part that its middle row falls into.
// The first target of each text is predicted by the soft prompt, which is in the trunk.
func TestLeavesAreDividedByTheirMiddleRows(t *testing.T) {
	for _, c := range []struct {
		leaves []int // their rows
		limit  int
		parts  [][]int // rows of each part's leaves
	}{
		{[]int{2, 2, 2, 2}, 8, nil}, {[]int{2, 2, 2, 2}, 7, [][]int{{2, 2}, {2, 2}}},
		{[]int{2, 2, 2, 2}, 4, [][]int{{2, 2}, {2, 2}}}, {[]int{2, 2, 2, 2}, 3, [][]int{{2}, {2, 2}, {2}}},
		{[]int{2, 2, 2, 2}, 1, [][]int{{2}, {2}, {2}, {2}}}, {[]int{2, 2, 2, 2}, 0, nil},
		{[]int{9, 1}, 5, [][]int{{9}, {1}}}, {[]int{1, 9}, 5, [][]int{{1}, {9}}},
		{[]int{3, 4, 3}, 5, [][]int{{3}, {4, 3}}}, // the middle of 4 is where the second half begins
		{[]int{10}, 5, nil}, {[]int{1, 1, 8}, 9, [][]int{{1, 1}, {8}}},
	} {
		var examples []batch.Example
		for i, rows := range c.leaves {
			examples = append(examples, batch.Example{IDs: slices.Repeat([]int32{int32(i)}, rows+1)})
		}
		f := batch.Pack([]int{3, 1}, examples) // no text follows the second prompt
		trunk, parts, partOf := f.Split(c.limit)
		var got [][]int
		var want []int // part of each target
		for i, p := range parts {
			var leaves []int
			for _, s := range p.Segments[len(trunk.Segments):] {
				leaves = append(leaves, s.Len)
				want = append(append(want, -1), slices.Repeat([]int{i}, s.Len)...)
			}
			got = append(got, leaves)
		}
		if !slices.EqualFunc(got, c.parts, slices.Equal) || !slices.Equal(partOf, want) {
			t.Errorf("leaves %v, limit %d: parts %v, targets in %v; want %v, %v", c.leaves, c.limit, got, partOf,
				c.parts, want)
		}
		if rows := trunk.Rows(); parts != nil && rows != 4 {
			t.Errorf("leaves %v, limit %d: the trunk has %d rows, want the 4 of the prompts", c.leaves, c.limit, rows)
		}
	}
	// Without soft prompts the trunk is the shared prefix.
	f := batch.Pack(nil, []batch.Example{
		{IDs: []int32{1, 2, 3, 4, 5, 6}, From: 5}, {IDs: []int32{1, 2, 3, 4, 7, 8}, From: 5},
	})
	if trunk, parts, _ := f.Split(1); trunk.Rows() != 4 || len(parts) != 2 || f.Kept(1) != 5 {
		t.Errorf("the trunk has %d rows, there are %d parts, %d rows kept; want 4, 2, 5", trunk.Rows(),
			len(parts), f.Kept(1))
	}
}

// A target sees the same tokens as before, no row is in two parts, and the parts have about
// equal sizes.
func TestASplitForestHasTheSameTargetsAndRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int32Range(0, 1)
		prompts := rapid.SliceOfN(rapid.IntRange(1, 3), 0, 2).Draw(t, "prompts")
		var examples []batch.Example
		longest := 0
		for range rapid.IntRange(1, 8).Draw(t, "examples") {
			e := batch.Example{IDs: rapid.SliceOfN(id, 2, 12).Draw(t, "ids"), From: 1}
			if len(prompts) > 0 {
				e.Prompt = rapid.IntRange(0, len(prompts)-1).Draw(t, "prompt")
			}
			examples, longest = append(examples, e), max(longest, len(e.IDs))
		}
		f := batch.Pack(prompts, examples)
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		trunk, parts, partOf := f.Split(limit)
		if parts == nil {
			if trunk != f || f.Kept(limit) != f.Rows() {
				t.Fatalf("a forest without parts is not its own trunk, or Kept is %d, not %d",
					f.Kept(limit), f.Rows())
			}
			return
		}
		rows, kept := trunk.Rows(), 0
		seen := make([]int, len(parts)+1) // targets of the trunk, and of each part
		for _, p := range parts {
			if p.Rows() >= limit+longest || p.Rows() == 0 || p.TrunkRows != trunk.Rows() {
				t.Fatalf(
					"a part has %d rows after %d of the trunk, want at most %d and half a leaf after %d",
					p.Rows(), p.TrunkRows, limit, trunk.Rows())
			}
			rows, kept = rows+p.Rows(), max(kept, p.Rows())
		}
		if rows != f.Rows() || len(partOf) != len(f.Targets) || f.Kept(limit) != trunk.Rows()+kept {
			t.Fatalf("%d rows and %d targets in parts, %d and %d before; Kept is %d, want %d",
				rows, len(partOf), f.Rows(), len(f.Targets), f.Kept(limit), trunk.Rows()+kept)
		}
		for i, want := range f.Targets {
			in, ids := trunk, trunk.IDs
			if p := partOf[i]; p >= 0 {
				in, ids = parts[p], slices.Concat(trunk.IDs, parts[p].IDs)
			}
			got := in.Targets[seen[partOf[i]+1]]
			seen[partOf[i]+1]++
			before, pos := read(f, want.Row)
			after, at := read(&batch.Forest{IDs: ids, Segments: in.Segments}, got.Row)
			if got.ID != want.ID || got.Of != want.Of || at != pos || !slices.Equal(after, before) {
				t.Fatalf(
					"target %d is %+v and sees %v at position %d; in part %d it is %+v, sees %v at %d",
					i, want, before, pos, partOf[i], got, after, at)
			}
		}
	})
}
