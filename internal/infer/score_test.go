package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ptune/internal/batch"
)

func TestProbabilitiesSumToOneAndKeepTheirRatios(t *testing.T) {
	p := Probabilities([]float64{1000, 1000 + math.Ln2, 1000 + 2*math.Ln2})
	for i, want := range []float64{4.0 / 7, 2.0 / 7, 1.0 / 7} {
		if !(math.Abs(p[i]-want) <= 1e-12) {
			t.Errorf("probability %d is %g, want %g", i, p[i], want)
		}
	}
}

// grove is a speller that also computes trees.
type grove struct {
	*speller
	trees *forest
	room  int // rows that trees have room for
	calls int
}

func newGrove(says ...string) *grove {
	return &grove{speller: newSpeller(says...), trees: newForest(), room: 1000}
}

func (g *grove) AddPrompt(values []float32) (int, error) {
	p, err := g.speller.AddPrompt(values)
	g.trees.prompts[p] = &grown{before: []int32{1000 + int32(values[0])}}
	return p, err
}

func (g *grove) NewTree(prompt, stem int) (int, error) { return g.trees.NewTree(prompt, stem) }
func (g *grove) RemoveTree(tree int)                   { g.trees.RemoveTree(tree) }

func (g *grove) Extend(rows []batch.Row) ([]float32, error) {
	g.calls++
	if len(rows)+len(g.texts) > g.room {
		return nil, fmt.Errorf("%w: no room for %d rows", batch.ErrFull, len(rows))
	}
	for _, r := range rows {
		if r.ID == 66 {
			return nil, errors.New("there is no token 66")
		}
	}
	return g.trees.Extend(rows)
}

// scorer has the engine score by trees only.
type scorer struct{ Scorer }

// Random requests of three prompts, whose inputs and labels begin alike.
func TestLabelsInTreesAreScoredAsAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	some := func(least, most int) []int32 {
		ids := make([]int32, least+r.IntN(most-least+1))
		for i := range ids {
			ids[i] = r.Int32N(3)
		}
		return ids
	}
	for range 50 {
		g := newGrove()
		e := New(g, Options{Scorer: scorer{}, Trees: g, ScoreTokens: 1 + r.IntN(60)})
		prompts := []*Prompt{nil}
		for i := range 2 {
			p, err := e.AddPrompt([]float32{float32(i)}, 1)
			if err != nil {
				t.Fatal(err)
			}
			prompts = append(prompts, p)
		}
		requests := make([]Request, 12)
		for i := range requests {
			requests[i] = Request{Prompt: prompts[r.IntN(3)], IDs: some(1, 4)}
			for range 1 + r.IntN(5) {
				requests[i].Labels = append(requests[i].Labels, some(1, 4))
			}
		}
		results, err := e.Generate(context.Background(), requests)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range requests {
			var before []int32
			if q.Prompt != nil {
				before = g.trees.prompts[q.Prompt.handle].before
			}
			before = append(before[:len(before):len(before)], q.IDs...)
			for k, label := range q.Labels {
				if got, want := results[i].Scores[k], sumOf(before, label); got != want {
					t.Fatalf("request %d, label %d: %g, want %g", i, k, got, want)
				}
			}
			if len(results[i].Scores) != len(q.Labels) {
				t.Errorf("request %d has %d scores of %d labels", i, len(results[i].Scores), len(q.Labels))
			}
		}
		if len(g.trees.trees) > 0 {
			t.Errorf("%d trees are left", len(g.trees.trees))
		}
	}
}

func TestWhatRequestsBeginWithIsComputedOnce(t *testing.T) {
	g := newGrove()
	e := New(g, Options{Scorer: scorer{}, Trees: g, ScoreTokens: 1000})
	labels := [][]int32{{5, 6}, {5, 7}, {8}}
	_, err := e.Generate(context.Background(), []Request{
		{IDs: []int32{1, 2, 3}, Labels: labels}, {IDs: []int32{1, 2, 4}, Labels: labels},
		{IDs: []int32{1, 2, 3}, Labels: labels},
	})
	// 1 2, then 3 5 and 4 5
	if err != nil || g.trees.rows != 6 || g.calls != 1 {
		t.Errorf("%d rows in %d passes, want 6 in 1 (%v)", g.trees.rows, g.calls, err)
	}
}

// What a row is asked for may change the last bits of an answer, so no request changes it for another.
func TestRowsAreAskedForWhatEachRequestAlonePutsThere(t *testing.T) {
	for name, c := range map[string]struct {
		labels [][]int32 // of the second request; the first has 5 6, 5 7 and 8
		input  []int32
		rows   int
	}{
		"the same labels":             {[][]int32{{5, 6}, {5, 7}, {8}}, []int32{1, 2}, 3},
		"other labels":                {[][]int32{{6}, {9}}, []int32{1, 2}, 5},
		"some of the labels":          {[][]int32{{5}}, []int32{1, 2}, 5},
		"another order":               {[][]int32{{8}, {5, 6}, {5, 7}}, []int32{1, 2}, 6},
		"an input with a label's":     {[][]int32{{6}, {9}}, []int32{1, 2, 5}, 6},
		"another row":                 {[][]int32{{6}, {9}}, []int32{1}, 3},
		"after a row that is unasked": {[][]int32{{6}, {9}}, []int32{1, 2, 8}, 4},
	} {
		g := newGrove()
		e := New(g, Options{Scorer: scorer{}, Trees: g, ScoreTokens: 1000})
		_, err := e.Generate(context.Background(), []Request{
			{IDs: []int32{1, 2}, Labels: [][]int32{{5, 6}, {5, 7}, {8}}}, {IDs: c.input, Labels: c.labels},
		})
		if err != nil || g.trees.rows != c.rows || g.calls != 1 {
			t.Errorf("%s: %d rows in %d passes, want %d in 1 (%v)", name, g.trees.rows, g.calls, c.rows, err)
		}
	}
}

func TestLabelsWaitForMemoryThatTextsTake(t *testing.T) {
	g := newGrove("a long text", "a text")
	g.room = 4
	e := New(g, Options{Scorer: scorer{}, Trees: g, ScoreTokens: 1000, Decode: decode, Texts: 4})
	add := func(r Request) *Handle {
		h, err := e.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	text := add(Request{IDs: []int32{1}, MaxTokens: 50, EOS: []int32{0}})
	if err := e.Step(context.Background()); err != nil {
		t.Fatal(err)
	}
	labels := [][]int32{{5, 6}, {7}}
	all := []*Handle{
		add(Request{IDs: []int32{1, 2, 3}, Labels: labels}), // four rows: too many beside a text
		add(Request{IDs: []int32{1, 2, 66}, Labels: labels}),
		add(Request{IDs: []int32{1, 2, 4, 5, 6}, Labels: labels}), // never fits
		add(Request{IDs: []int32{1, 2, 4}, Labels: labels}),
		add(Request{IDs: []int32{2}, MaxTokens: 50, EOS: []int32{0}}),
	}
	for !e.Idle() {
		if err := e.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
		if r, _ := text.Result(); r == nil && (all[0].result != nil || len(g.texts) > 1) {
			t.Error("labels were scored, or a text joined, while another text took the memory")
		}
	}
	for i, h := range all {
		wrong := i == 1 || i == 2
		if r, err := h.Result(); (err != nil) != wrong || (r == nil) != wrong || errors.Is(err, batch.ErrFull) != (i == 2) {
			t.Errorf("request %d has the result %v and the error %v", i, r, err)
		}
	}
	if len(g.trees.trees) > 0 {
		t.Errorf("%d trees are left", len(g.trees.trees))
	}
}

func TestLabelsThatDoNotFitTheModelAreRefused(t *testing.T) {
	g := newGrove()
	e := New(g, Options{Scorer: scorer{}, Trees: g, ScoreTokens: 1000})
	if _, err := e.Add(Request{IDs: []int32{-1}, Labels: [][]int32{{5}, {7}}}); err == nil {
		t.Error("a token that does not exist was taken")
	}
}
