package model_test

import (
	"testing"

	"ptune/internal/batch"
	"ptune/internal/model"
)

// The parts end within pages, at them and one row after them.
func TestATextReadInPartsHasTheBitsOfTheWholeText(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		d := m.NewDecoder(1 << 30)
		p, err := d.AddPrompt(prompt(m, 3))
		if err != nil {
			t.Fatal(err)
		}
		n := 120
		if m.MaxPositions > 0 {
			n = min(n, m.MaxPositions-8)
		}
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(1 + i*7%50)
		}
		for _, at := range []int{p, batch.NoPrompt} {
			_, got, err := d.Add([]batch.Text{{Prompt: at, IDs: ids, Room: 4}})
			if err != nil {
				t.Fatal(err)
			}
			want := copies(got)
			seqs, _, err := d.Add([]batch.Text{{Prompt: at, IDs: ids[:5], Room: n}, {Prompt: at, IDs: ids[:9], Room: n}})
			if err != nil {
				t.Fatal(err)
			}
			has := []int{5, 9}
			for _, to := range [][2]int{{11, 44}, {44, 45}, {45, n}, {n, n}} {
				var some []int
				var more [][]int32
				for i := range seqs {
					if e := min(n, to[i]); e > has[i] {
						some, more = append(some, seqs[i]), append(more, ids[has[i]:e])
						has[i] = e
					}
				}
				if got, err = d.Read(some, more); err != nil || len(got) != len(some) {
					t.Fatalf("%d logits, %v", len(got), err)
				}
			}
			if !sameBits(got, want) { // of text 0, which ended last
				t.Errorf("prompt %d: the logits of a text read in parts differ from those of the whole text", at)
			}
			if a, b := next(t, d, seqs[:1], []int32{3}), next(t, d, seqs[1:], []int32{3}); !sameBits(a, b) {
				t.Errorf("prompt %d: equal texts read in other parts have other logits", at)
			}
		}
	})
}
