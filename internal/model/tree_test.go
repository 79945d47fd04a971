package model_test

import (
	"math"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/model"
)

// branch is a text as rows of a tree: the input as a chain, then each ending's tokens on their own path.
func branch(tree int, input []int32, endings [][]int32) []batch.Row {
	var rows []batch.Row
	for i, id := range input {
		rows = append(rows, batch.Row{Tree: tree, Parent: i - 1, ID: id})
	}
	for _, e := range endings {
		parent := len(input) - 1
		for i := range len(e) - 1 {
			rows = append(rows, batch.Row{Tree: tree, Parent: parent, ID: e[i], Asked: e[i+1 : i+2 : i+2]})
			parent = len(rows) - 1
		}
	}
	return rows
}

// trees returns a decoder with a soft prompt of that many rows, none for 0, and the prompt's handle.
func trees(t *testing.T, m *model.Model, rows int) (*model.Decoder, int) {
	t.Helper()
	d := m.NewDecoder(model.NoCacheLimit)
	t.Cleanup(d.Close)
	if rows == 0 {
		return d, batch.NoPrompt
	}
	p, err := d.AddPrompt(prompt(m, rows))
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

func newTree(t *testing.T, d *model.Decoder, prompt, stem int) int {
	t.Helper()
	tree, err := d.NewTree(prompt, stem)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func extend(t *testing.T, d *model.Decoder, rows []batch.Row) []float32 {
	t.Helper()
	nll, err := d.Extend(rows)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(nll)
}

// A row alone, one of a few and one of many take different kernels. A tree of more than 48 rows lies on
// several pages of the cache.
func TestTheScoresOfATreeDoNotDependOnTheOtherRowsOfACall(t *testing.T) {
	for _, name := range append(bases, "mistral-window", "bloom-f16", "gemma2", "falcon-rw") {
		m := load(t, name, 2)
		input := []int32{1, 20, 3, 22, 5, 6, 7, 8}
		endings := [][]int32{{3, 9, 10, 11}, {4, 12, 13}, {3, 14, 15, 16}}
		for range 17 {
			endings = append(endings, []int32{17, 18, 19, 21})
		}
		for _, p := range []int{0, 3} {
			d, prompt := trees(t, m, p)
			var want []float32 // one row a call
			tree := newTree(t, d, prompt, 0)
			for i, r := range branch(tree, input, endings) {
				r.Asked = append(r.Asked, 40, 41)
				got := extend(t, d, []batch.Row{r})
				if i >= len(input) {
					want = append(want, got[:len(got)-2]...)
				}
			}
			d.RemoveTree(tree)

			// All rows in one call, with those of other trees.
			var rows []batch.Row
			tree = newTree(t, d, prompt, 0)
			for range 3 {
				other := newTree(t, d, prompt, 0)
				rows = append(rows, branch(other, input[1:], endings[:2])...)
			}
			skip := 0
			for _, r := range rows {
				skip += len(r.Asked)
			}
			rows = append(rows, branch(tree, input, endings)...)
			for i := range rows[len(rows)-len(want):] {
				r := &rows[len(rows)-len(want)+i]
				r.Asked = append(r.Asked[:1:1], 40, 41)
			}
			all := extend(t, d, rows)[skip:]
			var got []float32
			for i := 0; i < len(all); i += 3 {
				got = append(got, all[i])
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, prompt of %d rows: %v in one call, %v one after the other", name, p, got, want)
			}

			// After a stem of what several inputs begin with.
			stem := newTree(t, d, prompt, 0)
			first := branch(stem, input[:5], nil)
			first[4].Asked = []int32{1}
			extend(t, d, first)
			tree = newTree(t, d, prompt, stem)
			rows = branch(tree, input[5:], endings)
			for i := range rows {
				if rows[i].Asked != nil {
					rows[i].Asked = append(rows[i].Asked[:1:1], 40, 41)
				}
			}
			for i, v := range extend(t, d, rows) {
				if i%3 == 0 && v != want[i/3] {
					t.Errorf("%s, after a stem: number %d is %g, want %g", name, i/3, v, want[i/3])
				}
			}
		}
	}
}

func TestTheScoresOfATreeAreThoseOfTheWholeTexts(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		input, endings := []int32{1, 20, 3}, [][]int32{{3, 9, 10, 11}, {4, 12}, {3, 14, 15, 16}}
		for _, p := range []int{0, 50} {
			var values []float32
			var rows []int
			if p > 0 {
				values, rows = prompt(m, p), []int{p}
			}
			var examples []batch.Example
			for _, e := range endings {
				examples = append(examples, batch.Example{IDs: slices.Concat(input, e), From: len(input) + 1})
			}
			nll, err := m.NLL(values, batch.Pack(rows, examples))
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(nll)
			d, prompt := trees(t, m, p)
			same(t, "scores", extend(t, d, branch(newTree(t, d, prompt, 0), input, endings)), want)

			// The tokens asked for after one row, together and each alone: equal but for the last bits.
			together := []batch.Row{{Tree: newTree(t, d, prompt, 0), Parent: -1, ID: 1, Asked: []int32{9, 4, 30, 2}}}
			all := extend(t, d, together)
			for i, id := range together[0].Asked {
				alone := []batch.Row{{Tree: newTree(t, d, prompt, 0), Parent: -1, ID: 1, Asked: []int32{id}}}
				near(t, "a token", extend(t, d, alone), all[i:i+1])
			}
		}
	})
}

func TestTreesThatCannotBeComputedAreErrors(t *testing.T) {
	m := load(t, "gpt2-f32", 1)
	d, prompt := trees(t, m, 3)
	tree, alone := newTree(t, d, prompt, 0), newTree(t, d, batch.NoPrompt, 0)
	for what, rows := range map[string][]batch.Row{
		"a token beyond the vocabulary":       {{Tree: tree, Parent: -1, ID: math.MaxInt32, Asked: []int32{1}}},
		"an asked token below 0":              {{Tree: tree, Parent: -1, ID: 1, Asked: []int32{-1}}},
		"a row after one that does not exist": {{Tree: tree, Parent: 7, ID: 1, Asked: []int32{1}}},
		"an unknown tree":                     {{Tree: 99, Parent: -1, ID: 1, Asked: []int32{1}}},
		"nothing asked":                       {{Tree: tree, Parent: -1, ID: 1}},
		"no row":                              nil,
		"trees with and without a prompt": {
			{Tree: tree, Parent: -1, ID: 1, Asked: []int32{1}}, {Tree: alone, Parent: -1, ID: 1, Asked: []int32{1}},
		},
	} {
		if nll, err := d.Extend(rows); err == nil {
			t.Errorf("%s: got %v, want an error", what, nll)
		}
	}
	var long []batch.Row
	for i := range m.MaxPositions {
		long = append(long, batch.Row{Tree: newTree(t, d, prompt, 0), Parent: i - 1, ID: 1, Asked: []int32{1}})
		long[i].Tree = long[0].Tree
	}
	if _, err := d.Extend(long); err == nil {
		t.Errorf("a text of %d tokens after a prompt of 3 rows is no error", m.MaxPositions)
	}
	if _, err := d.NewTree(12345, 0); err == nil {
		t.Error("a tree after an unknown prompt is no error")
	}
	if _, err := d.NewTree(prompt, tree+1000); err == nil {
		t.Error("a tree after an unknown stem is no error")
	}
}
