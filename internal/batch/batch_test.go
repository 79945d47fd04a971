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
