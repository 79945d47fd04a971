package infer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/prompt"
)

// recorder notes the texts that it is asked about and those that it begins.
type recorder struct {
	*speller
	checked []batch.Text
	begun   [][]int // lengths of the texts of each call
	most    int     // texts at a time
}

func (r *recorder) Check(t batch.Text) error {
	r.checked = append(r.checked, t)
	return nil
}

func (r *recorder) Add(texts []batch.Text) ([]int, [][]float32, error) {
	var lengths []int
	for _, t := range texts {
		lengths = append(lengths, len(t.IDs))
		r.says = append(r.says, "a text that goes on")
	}
	r.begun = append(r.begun, lengths)
	seqs, logits, err := r.speller.Add(texts)
	r.most = max(r.most, len(r.texts))
	return seqs, logits, err
}

// A text needs room for its input and its most tokens, labels for the input and all but the last token of
// the longest of them.
func TestARequestIsCheckedWithAllThatItsTextCanBecome(t *testing.T) {
	r := &recorder{speller: newSpeller()}
	e := New(r, Options{Scorer: &unlikely{}})
	for _, request := range []Request{
		{IDs: []int32{1, 2}, MaxTokens: 7},
		{IDs: []int32{1, 2}, MaxTokens: 7, Labels: [][]int32{{5}, {3, 4, 5}, {6, 7}}},
		{IDs: []int32{1}, MaxTokens: 7, Labels: [][]int32{{5}, {6}}},
		{Labels: [][]int32{{5}, {6}}}, // nothing to compute
	} {
		if err := e.Check(request); err != nil {
			t.Error(err)
		}
	}
	want := []batch.Text{
		{Prompt: batch.NoPrompt, IDs: []int32{1, 2}, Room: 7},
		{Prompt: batch.NoPrompt, IDs: []int32{1, 2, 3, 4}}, {Prompt: batch.NoPrompt, IDs: []int32{1}},
	}
	if !slices.EqualFunc(r.checked, want, func(a, b batch.Text) bool {
		return a.Prompt == b.Prompt && slices.Equal(a.IDs, b.IDs) && a.Room == b.Room
	}) {
		t.Errorf("checked %+v, want %+v", r.checked, want)
	}
}

// Each text that is begun is one of the lengths; an input that is continued with parts is read later.
func TestAStepReadsAtMostReadTokens(t *testing.T) {
	a, b := slices.Repeat([]int32{'a'}, 8), slices.Repeat([]int32{'b'}, 8)
	for name, c := range map[string]struct {
		inputs [][]int32
		begun  [][]int // in each step
		reads  []int   // of inputs that were begun before
	}{
		"the first fits, the second does not": {[][]int32{a[:7], b[:7], a[:7]}, [][]int{{7, 3}, {6}}, []int{4, 1}},
		"the first takes all":                 {[][]int32{slices.Concat(a, b[:2]), b[:5]}, [][]int{{10}, {5}}, nil},
		"equal inputs are read once":          {[][]int32{a, a, b}, [][]int{{8, 8, 2}}, []int{6}},
		"an input that is longer by one":      {[][]int32{slices.Concat(a, b[:3])}, [][]int{{10}}, []int{1}},
		"a long one leaves nothing":           {[][]int32{slices.Concat(a, b, a[:4]), b}, [][]int{{10}, {8}}, []int{10}},
	} {
		r := &recorder{speller: newSpeller()}
		e := New(r, Options{Decode: decode, ReadTokens: 10})
		for _, ids := range c.inputs {
			if _, err := e.Add(Request{IDs: ids, MaxTokens: 30}); err != nil {
				t.Fatal(err)
			}
		}
		for !e.Idle() {
			if err := e.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.EqualFunc(r.begun, c.begun, slices.Equal) || !slices.Equal(r.reads, c.reads) {
			t.Errorf("%s: texts of %v tokens were begun and %v tokens read later, want %v and %v",
				name, r.begun, r.reads, c.begun, c.reads)
		}
	}
	// Inputs after different soft prompts are not the same, nor are those of texts in work.
	r := &recorder{speller: newSpeller()}
	e := New(r, Options{Decode: decode, ReadTokens: 10})
	for range 2 {
		p, err := e.AddPrompt([]float32{1}, 1)
		if err == nil {
			_, err = e.Add(Request{Prompt: p, IDs: a, MaxTokens: 3})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Step(context.Background()); err != nil || !slices.Equal(r.begun[0], []int{8, 2}) {
		t.Errorf("after two soft prompts texts of %v tokens were begun (%v), want 8 and 2", r.begun, err)
	}
}

// Of eight places, two must be free for texts to be begun where more wait than there is room for.
func TestTextsWaitForMorePlacesOnlyIfMoreWait(t *testing.T) {
	for _, c := range []struct{ running, waiting, begun int }{
		{0, 9, 8}, {5, 4, 3}, {6, 3, 2}, {6, 2, 2}, {7, 2, 0}, {7, 1, 1}, {8, 1, 0},
	} {
		r := &recorder{speller: newSpeller()}
		e := New(r, Options{Decode: decode, Texts: 8})
		add := func(n int) {
			for range n {
				if _, err := e.Add(Request{IDs: []int32{1}, MaxTokens: 30}); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		add(c.running)
		add(c.waiting)
		if got := len(e.running) - c.running; got != c.begun {
			t.Errorf("%d of 8 places are taken, %d texts wait: %d were begun, want %d", c.running, c.waiting, got, c.begun)
		}
	}
}

func TestAtMostAheadInputsAreAnsweredAtATime(t *testing.T) {
	for _, ahead := range []int{1, 3} {
		r := &recorder{speller: newSpeller()}
		g := NewGenerator(New(r, Options{Decode: decode}), Request{MaxTokens: 5})
		if err := g.Add(nil, bytesAsTokens{}, bytesAsTokens{}, true, false); err != nil {
			t.Fatal(err)
		}
		err := g.Run(context.Background(), Known(Texts(strings.Split("a b c d e f g", " "))), ahead, nil,
			func(Answer) error { return nil })
		if err != nil || r.most != ahead {
			t.Errorf("%d at a time: %d texts were in work (%v)", ahead, r.most, err)
		}
	}
}

// With two prompts, request n of all is made with Stream n.
func TestRequestsOfAGeneratorDrawTheirOwnNumbers(t *testing.T) {
	sampling := Sampling{Temperature: 9, Seed: 3}
	wild := func() *speller {
		d := newSpeller(strings.Split(strings.Repeat("x ", 6), " ")...)
		d.logits = func(string, []int32) []float32 { return make([]float32, 256) }
		return d
	}
	g := NewGenerator(New(wild(), Options{}), Request{MaxTokens: 9, Sampling: sampling})
	for range 2 {
		if err := g.Add(nil, bytesAsTokens{}, bytesAsTokens{}, true, false); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]int32
	err := g.Run(context.Background(), Known(Texts([]string{"a", "a", "a"})), 2, nil, func(a Answer) error {
		got = append(got, a.Results[0].IDs, a.Results[1].IDs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range got {
		s := sampling
		s.Stream = n
		want, err := New(wild(), Options{}).Generate(context.Background(),
			[]Request{{IDs: []int32{'a'}, MaxTokens: 9, Sampling: s}})
		if err != nil || !slices.Equal(got[n], want[0].IDs) {
			t.Errorf("request %d drew %v, want %v (%v)", n, got[n], want, err)
		}
	}
}

func TestAPromptThatAGeneratorCannotUseIsRefused(t *testing.T) {
	for _, c := range []struct {
		meta              prompt.Meta
		texts, onlyLabels bool
		want              string // in the error; empty: none
	}{
		{prompt.Meta{Input: "{a}{b}", Target: "x"}, false, false, ""},
		{prompt.Meta{Input: "{a}{b}", Target: "x"}, true, false, ErrFields.Error()},
		{prompt.Meta{Input: "{a", Target: "x"}, true, false, "{ without }"},
		{prompt.Meta{Input: "{a}", Target: "x"}, true, true, "the prompt has no labels"},
		{prompt.Meta{Input: "{a}", Target: "{x"}, true, true, "{ without }"},
		{prompt.Meta{Input: "{a}", Target: "{y}", Labels: prompt.ParseLabels([]string{"p", "q"})}, true, true, ""},
	} {
		g := NewGenerator(New(newSpeller(), Options{Scorer: &unlikely{}}), Request{})
		p := &prompt.Prompt{Meta: c.meta, Values: []float32{1}, Rows: 1, Dim: 1}
		err := g.Add(p, bytesAsTokens{}, bytesAsTokens{}, c.texts, c.onlyLabels)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error is %v, want %q", c, err, c.want)
		}
	}
	failing := errors.New("no memory")
	g := NewGenerator(New(full{newSpeller(), failing}, Options{}), Request{})
	p := &prompt.Prompt{Meta: prompt.Meta{Input: "{a}", Target: "x"}, Values: []float32{1}, Rows: 1, Dim: 1}
	if err := g.Add(p, bytesAsTokens{}, bytesAsTokens{}, true, false); !errors.Is(err, failing) {
		t.Errorf("error is %v, want %v", err, failing)
	}
}

// full has no memory for a soft prompt.
type full struct {
	*speller
	err error
}

func (f full) AddPrompt([]float32) (int, error) { return 0, f.err }
