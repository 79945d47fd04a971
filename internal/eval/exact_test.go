package eval

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"ptune/internal/base"
	"ptune/internal/batch"
	"ptune/internal/infer"
	"ptune/internal/model"
)

// Targets are what the demo's model writes, with and without a wrong token.
func TestExactMatchesAreThoseOfGeneratedText(t *testing.T) {
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := rand.New(rand.NewPCG(1, 2))
	engine := infer.New(b.NewDecoder(model.NoCacheLimit), infer.Options{})
	values := make([]float32, 3*b.Hidden)
	for i := range values {
		values[i] = float32(r.NormFloat64()) * 0.05
	}
	p, err := engine.AddPrompt(values, 3)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	equal, surely := 0, 0
	for n := range 60 {
		input := []int32{int32(r.IntN(b.Vocab)), int32(r.IntN(b.Vocab))}
		x := Exact{Engine: engine, Forcer: b, MaxTokens: 5}
		if n%3 > 0 {
			x.Prompt, x.Values, x.Rows = p, values, []int{3}
		}
		written, err := engine.Generate(ctx, []infer.Request{{Prompt: x.Prompt, IDs: input, MaxTokens: 6}})
		if err != nil {
			t.Fatal(err)
		}
		target := slices.Clone(written[0].IDs)
		if n%2 == 0 {
			target[r.IntN(len(target))] = int32(r.IntN(b.Vocab))
		}
		x.EOS = target[len(target)-1]
		rows := []Row{{Input: input, Target: target}}
		answers, err := x.Answers(ctx, rows)
		if err != nil {
			t.Fatal(err)
		}
		want := ExactMatch(answers)
		got, err := x.Match(ctx, rows)
		if err != nil || got != want {
			t.Errorf("input %v, target %v, end token %d: share %g (%v), want %g as generated", input, target,
				x.EOS, got, err, want)
		}
		equal += int(want)
		x.Engine = nil // whoever generates now, panics
		func() {
			defer func() { _ = recover() }()
			if _, err := x.Match(ctx, rows); err == nil {
				surely++
			}
		}()
	}
	if equal < 10 || equal > 40 || surely < 20 {
		t.Errorf("%d of 60 rows matched, %d without generating", equal, surely)
	}
}

// forced has the margins of each target's tokens: that of token k is k − 100 hundredths.
type forced struct {
	passes []int // rows of each
}

func (f *forced) Margins(_ []float32, forest *batch.Forest) (m []float32, err error) {
	for _, t := range forest.Targets {
		m = append(m, float32(t.ID-100)/100)
	}
	f.passes = append(f.passes, forest.Targets[len(forest.Targets)-1].Of+1)
	return m, nil
}

// always writes token 3. Text is continued in as many passes as begun has numbers of texts.
type always struct {
	refusing
	begun []int
}

func (a *always) Check(batch.Text) error { return nil }
func (a *always) Add(texts []batch.Text) (seqs []int, logits [][]float32, err error) {
	a.begun = append(a.begun, len(texts))
	return make([]int, len(texts)), slices.Repeat([][]float32{{0, 0, 0, 1, 0}}, len(texts)), nil
}

// Each row has 3 tokens. The end token is generated at once for all of them, which is the whole target
// of all but one.
func TestExactMatchTakesAtMostMaxTokensAtATime(t *testing.T) {
	for _, c := range []struct {
		rows, most int
		want       []int // rows of each pass
	}{
		{3, 1, []int{1, 1, 1}}, {3, 5, []int{1, 1, 1}}, {3, 6, []int{2, 1}}, {3, 9, []int{3}},
		{130, 1000, []int{64, 64, 2}},
	} {
		rows := slices.Repeat([]Row{{Input: []int32{1, 2}, Target: []int32{3}}}, c.rows)
		rows[1] = Row{Input: []int32{1}, Target: []int32{4, 3}}
		d := &always{}
		x := Exact{Engine: infer.New(d, infer.Options{}), EOS: 3, MaxTokens: c.most}
		answers, err := x.Answers(context.Background(), rows)
		if err != nil || !slices.Equal(d.begun, c.want) {
			t.Errorf("%d rows, %d tokens at a time: continued %v together (%v), want %v",
				c.rows, c.most, d.begun, err, c.want)
		}
		want := float64(c.rows-1) / float64(c.rows)
		if got := ExactMatch(answers); got != want {
			t.Errorf("%d of %d targets are generated: share %g, want %g", c.rows-1, c.rows, got, want)
		}
	}
	for _, c := range []struct {
		most int
		want []int
	}{{1, []int{1, 1, 1}}, {5, []int{1, 1, 1}}, {6, []int{2, 1}}, {9, []int{3}}} {
		f := &forced{}
		x := Exact{Forcer: f, EOS: 150, MaxTokens: c.most}
		rows := slices.Repeat([]Row{{Input: []int32{1, 2}, Target: []int32{150}}}, 3)
		rows[1] = Row{Input: []int32{1}, Target: []int32{50, 150}}
		got, err := x.Match(context.Background(), rows)
		if err != nil || got != 2.0/3 || !slices.Equal(f.passes, c.want) {
			t.Errorf("%d tokens at a time: share %g (%v) in passes of %v rows, want 2/3 in %v",
				c.most, got, err, f.passes, c.want)
		}
	}
}

func TestAnExactMatchTellsItsProgress(t *testing.T) {
	rows := slices.Repeat([]Row{{Input: []int32{1, 2}, Target: []int32{150}}}, 5)
	rows[1].Target = []int32{124} // close, so that it is generated
	var told [][2]int
	x := Exact{
		Engine: infer.New(&always{}, infer.Options{}), Forcer: &forced{}, EOS: 150, MaxTokens: 6,
		Tell: func(done, of int) { told = append(told, [2]int{done, of}) },
	}
	if _, err := x.Match(context.Background(), rows); err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, x := range told {
		if x[1] != len(rows) || x[0] < last {
			t.Fatalf("told %v of %d rows", told, len(rows))
		}
		last = x[0]
	}
	if last != len(rows) || len(told) < 3 {
		t.Errorf("told %v, want all %d rows in steps", told, len(rows))
	}
}

// Only rows that are close are generated, here by a decoder that fails.
func TestOnlyRowsThatAreCloseAreGenerated(t *testing.T) {
	failing := errors.New("asked")
	engine := infer.New(refusing{failing}, infer.Options{})
	for _, c := range []struct {
		target []int32
		share  float64
		asked  bool
	}{
		{[]int32{180, 126, 130}, 1, false}, {[]int32{180, 126, 130, 130}, 0, false}, // it ends before the last token
		{[]int32{180, 74, 130}, 0, false}, {[]int32{180, 124, 130}, 0, true}, {[]int32{180, 76, 130}, 0, true},
		{[]int32{74, 101, 130}, 0, false},
	} {
		x := Exact{Engine: engine, Forcer: &forced{}, EOS: 130, MaxTokens: 100}
		share, err := x.Match(context.Background(), []Row{{Input: []int32{1}, Target: c.target}})
		if errors.Is(err, failing) != c.asked || !c.asked && (err != nil || share != c.share) {
			t.Errorf("%v: share %g, error %v; want %g, generated %v", c.target, share, err, c.share, c.asked)
		}
	}
}

// refusing is a decoder that takes no text.
type refusing struct{ err error }

func (r refusing) AddPrompt([]float32) (int, error)                 { return 0, nil }
func (r refusing) RemovePrompt(int)                                 {}
func (r refusing) Check(batch.Text) error                           { return r.err }
func (r refusing) Add([]batch.Text) ([]int, [][]float32, error)     { return nil, nil, r.err }
func (r refusing) Next([]int, [][]int32) (l [][]float32, err error) { return nil, r.err }
func (r refusing) Read([]int, [][]int32) (l [][]float32, err error) { return nil, r.err }
func (r refusing) Drop(int, int)                                    {}
func (r refusing) Room(int) int                                     { return 0 }
func (r refusing) Remove(int)                                       {}
