package infer

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"ptune/internal/batch"
)

// forest computes −log p of a token from the prompt and all tokens before it, in halves of a unit, so
// that many sums are equal.
type forest struct {
	prompts, trees map[int]*grown
	last, rows     int
	most           int // rows of a call of Extend
}

// grown is a soft prompt or a tree.
type grown struct {
	before []int32
	paths  [][]int32
}

func newForest() *forest { return &forest{prompts: map[int]*grown{}, trees: map[int]*grown{}} }

func (f *forest) add(to map[int]*grown, before []int32) int {
	f.last++
	to[f.last] = &grown{before: before}
	return f.last
}

func (f *forest) AddPrompt(values []float32) (int, error) {
	return f.add(f.prompts, []int32{1000 + int32(values[0])}), nil
}

func (f *forest) NewTree(prompt, stem int) (int, error) {
	switch {
	case stem != 0:
		paths := f.trees[stem].paths
		return f.add(f.trees, paths[len(paths)-1]), nil
	case prompt != batch.NoPrompt:
		return f.add(f.trees, f.prompts[prompt].before), nil
	}
	return f.add(f.trees, nil), nil
}

func (f *forest) RemovePrompt(p int) { delete(f.prompts, p) }
func (f *forest) RemoveTree(t int)   { delete(f.trees, t) }
func (f *forest) Close()             {}

// surprise is −log p of a token after others.
func surprise(before []int32, id int32) float32 {
	h := uint64(id) + 7
	for _, b := range before {
		h = (h ^ uint64(b)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return float32(h%5) / 2
}

func (f *forest) Extend(rows []batch.Row) (nll []float32, err error) {
	for _, r := range rows {
		t := f.trees[r.Tree]
		path := t.before
		if r.Parent >= 0 {
			path = t.paths[r.Parent]
		}
		path = append(slices.Clone(path), r.ID)
		t.paths = append(t.paths, path)
		for i, id := range r.Asked {
			if slices.Contains(r.Asked[:i], id) {
				return nil, errors.New("a token is asked for twice")
			}
			nll = append(nll, surprise(path, id))
		}
	}
	f.rows += len(rows)
	f.most = max(f.most, len(rows))
	return nll, nil
}

// sumOf is the likelihood of an ending.
func sumOf(before, ids []int32) (nll float64) {
	for i, id := range ids {
		nll += float64(surprise(slices.Concat(before, ids[:i]), id))
	}
	return nll
}

func TestTheSearchFindsWhatScoringAllLabelsFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func(least, most, tokens int) []int32 {
		ids := make([]int32, least+r.IntN(most-least+1))
		for i := range ids {
			ids[i] = r.Int32N(int32(tokens))
		}
		return ids
	}
	saved := 0
	for range 100 {
		var labels [][]int32
		for range 2 + r.IntN(30) {
			if l := some(1, 5, 4); !slices.ContainsFunc(labels, func(o []int32) bool { return slices.Equal(o, l) }) {
				labels = append(labels, l)
			}
		}
		ends := LabelEnds(labels, 99)
		prompts := make([]float32, r.IntN(3))
		rows := slices.Repeat([]int{1}, len(prompts))
		for i := range prompts {
			prompts[i] = float32(i)
		}
		start := some(0, 6, 9) // what all inputs begin with
		var questions []Asked
		for range 1 + r.IntN(70) {
			q := Asked{Prompt: r.IntN(max(1, len(prompts))), Input: slices.Concat(start, some(1, 4, 9))}
			switch r.IntN(4) {
			case 0: // a target that is no label
				q.Target = some(0, 6, 5)
			default:
				q.Target = append(slices.Clone(labels[r.IntN(len(labels))]), 99)
			}
			questions = append(questions, q)
		}
		tree := NewLabelTree(ends)
		for _, all := range []bool{false, true} {
			f, done := newForest(), 0
			o := SearchOptions{All: all, MaxTokens: 1 + r.IntN(2000), Done: func(n int) { done = n }}
			got, err := Search(context.Background(), f, prompts, rows, tree, questions, o)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.prompts)+len(f.trees) > 0 || done != len(questions) {
				t.Fatalf("%d prompts and %d trees are left, %d of %d questions are done",
					len(f.prompts), len(f.trees), done, len(questions))
			}
			for i, q := range questions {
				before := q.Input
				if len(prompts) > 0 {
					before = slices.Concat([]int32{1000 + int32(q.Prompt)}, q.Input)
				}
				var want []float64
				for _, l := range ends {
					want = append(want, sumOf(before, l))
				}
				best, a := Likeliest(want), got[i]
				target := Likelihood{sumOf(before, q.Target), len(q.Target)}
				if a.Best != best || a.NLL != want[best] || a.Target != target {
					t.Fatalf("question %d of %d labels: label %d with %g, target %v; want label %d with %g, target %v",
						i, len(ends), a.Best, a.NLL, a.Target, best, want[best], target)
				}
				if all && !slices.Equal(a.Scores, want) || !all && a.Scores != nil {
					t.Fatalf("all %v: scores are %v, want %v", all, a.Scores, want)
				}
				if all {
					saved += a.Rows
				} else {
					saved -= a.Rows
				}
			}
		}
	}
	if saved <= 0 {
		t.Errorf("the search computed %d rows more than scoring all labels, want fewer", -saved)
	}
}

func TestACancelledSearchLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	f := newForest()
	tree := NewLabelTree([][]int32{{1, 2, 3, 4}, {1, 2, 5, 6}, {3, 4, 7}})
	_, err := Search(ctx, f, []float32{0}, []int{1}, tree, slices.Repeat([]Asked{{Input: []int32{1}}}, 200),
		SearchOptions{MaxTokens: 100, Done: func(int) { cancel() }})
	if err != context.Canceled || len(f.prompts)+len(f.trees) > 0 {
		t.Errorf("error is %v, %d prompts and %d trees are left; want context.Canceled and none",
			err, len(f.prompts), len(f.trees))
	}
}

func TestThePassesOfManyPromptsAreNoLargerThanAskedFor(t *testing.T) {
	input := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	labels := NewLabelTree([][]int32{{1, 2}, {2, 1}})
	var prompts []float32
	var rows []int
	var asked []Asked
	for p := range 8 {
		prompts, rows = append(prompts, float32(p)), append(rows, 1)
		for i := range 2 {
			asked = append(asked, Asked{Prompt: p, Input: append(slices.Clone(input), int32(i)), Target: []int32{1}})
		}
	}
	f := newForest()
	const most = 30
	if _, err := Search(t.Context(), f, prompts, rows, labels, asked, SearchOptions{MaxTokens: most}); err != nil {
		t.Fatal(err)
	}
	if f.most > most {
		t.Errorf("a pass has %d rows, want at most %d", f.most, most)
	}
}
