package infer

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
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
		"a long one leaves nothing": {[][]int32{slices.Concat(a, b, a[:4]), b},
			[][]int{{10}, {8}}, []int{10}},
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
			t.Errorf("%d of 8 places are taken, %d texts wait: %d were begun, want %d", c.running,
				c.waiting, got, c.begun)
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

func TestTheEndTokenIsScoredIfALabelBeginsLikeAnother(t *testing.T) {
	for _, c := range []struct{ labels, want [][]int32 }{
		{[][]int32{{1}, {2}}, [][]int32{{1}, {2}}},
		{[][]int32{{1, 2}, {1, 3}}, [][]int32{{1, 2}, {1, 3}}},
		{[][]int32{{1}, {1, 2}}, [][]int32{{1, 9}, {1, 2, 9}}},
		{[][]int32{{3}, {1, 2}, {1}}, [][]int32{{3, 9}, {1, 2, 9}, {1, 9}}},
		{[][]int32{{1}}, [][]int32{{1}}},
		{[][]int32{{1, 2}, {1, 2}}, [][]int32{{1, 2, 9}, {1, 2, 9}}},
	} {
		if got := LabelEnds(c.labels, 9); !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("labels %v: %v are scored, want %v", c.labels, got, c.want)
		}
	}
}

func TestTheLikeliestIsTheFirstOfTheLowestScores(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		scores []float64
		want   int
	}{
		{[]float64{3, 1, 2}, 1}, {[]float64{2, 1, 1}, 1}, {[]float64{-1, -1}, 0}, {[]float64{nan, 5, nan}, 1},
		{[]float64{nan, nan}, 0}, {[]float64{inf, 7}, 1}, {nil, 0},
	} {
		if got := Likeliest(c.scores); got != c.want {
			t.Errorf("of %v the likeliest is %d, want %d", c.scores, got, c.want)
		}
	}
}

// A request has 2 tokens of input and 3 of labels.
func TestLabelsAreScoredForAtMostScoreTokensAtATime(t *testing.T) {
	for most, passes := range map[int]int{1: 3, 5: 3, 9: 3, 10: 2, 14: 2, 15: 1} {
		u := &unlikely{}
		e := New(newSpeller(), Options{Scorer: u, ScoreTokens: most})
		request := Request{IDs: []int32{1, 2}, Labels: [][]int32{{5}, {6, 7}}}
		got, err := e.Generate(context.Background(), []Request{request, request, request})
		if err != nil || u.forests != passes {
			t.Errorf("at most %d tokens: %d passes (%v), want %d", most, u.forests, err, passes)
		}
		for _, r := range got {
			if !(math.Abs(r.Scores[0]-0.5)+math.Abs(r.Scores[1]-1.3) <= 1e-6) || len(r.Scores) != 2 {
				t.Errorf("scores are %v, want 0.5 and 1.3", r.Scores)
			}
		}
	}
}

// The inner nodes of a tree of labels are its rows: what labels begin with, once.
func TestATreeOfLabelsIsSmallUpToSixteenRows(t *testing.T) {
	labels := [][]int32{{0}}
	for rows := range 18 {
		tree := NewLabelTree(labels)
		if tree.Rows() != rows || tree.Small() != (rows <= 16) {
			t.Errorf("%v: %d rows, small %v; want %d", labels, tree.Rows(), tree.Small(), rows)
		}
		labels = append(labels, []int32{int32(100 + rows), 1}, []int32{int32(100 + rows), 2})
	}
}

// Of inputs that begin with four equal tokens or more, these are computed once.
func TestWhatAllQuestionsBeginWithIsComputedOnce(t *testing.T) {
	labels := NewLabelTree([][]int32{{1}, {2}})
	for _, c := range []struct {
		inputs [][]int32
		rows   int
	}{
		{[][]int32{{5, 5, 5, 5, 1}, {5, 5, 5, 5, 2}}, 4 + 1 + 1},
		{[][]int32{{5, 5, 5, 1}, {5, 5, 5, 2}}, 4 + 4},
		{[][]int32{{5, 5, 5, 5, 1}}, 5},                      // alone nothing is shared
		{[][]int32{{5, 5, 5, 5}, {5, 5, 5, 5}}, 4 + 4},       // each keeps a token of its own
		{[][]int32{{5, 5, 5, 5, 5}, {5, 5, 5, 5, 5}}, 4 + 2}, // so four of these five
		{[][]int32{{5, 5, 5, 5, 1, 2}, {5, 5, 5, 5, 1}, {5, 5, 5, 5, 1, 3}}, 4 + 2 + 1 + 2},
	} {
		var questions []Asked
		for _, ids := range c.inputs {
			questions = append(questions, Asked{Input: ids})
		}
		f := newForest()
		found, err := Search(context.Background(), f, nil, nil, labels, questions, SearchOptions{MaxTokens: 1000})
		if err != nil || f.rows != c.rows || len(f.trees) != 0 {
			t.Errorf("%v: %d rows (%v), want %d; %d trees are left", c.inputs, f.rows, err, c.rows, len(f.trees))
		}
		for i, ids := range c.inputs {
			best := 0
			if surprise(ids, 2) < surprise(ids, 1) {
				best = 1
			}
			if found[i].Best != best {
				t.Errorf("%v: the likeliest label after %v is %d, want %d", c.inputs, ids, found[i].Best, best)
			}
		}
	}
}

// A question takes its input, its target and room for a small tree of labels, or for all of the tree if all
// are scored.
func TestQuestionsShareAPassUpToMaxTokens(t *testing.T) {
	for _, c := range []struct {
		questions, most int
		all             bool
		first           int // questions answered in the first pass
	}{
		{3, 1, false, 1}, {3, 37, false, 1}, {3, 38, false, 2}, {3, 57, false, 3},
		{3, 7, true, 1}, {3, 8, true, 2}, {3, 12, true, 3}, {60, 100_000, true, 48},
	} {
		labels := NewLabelTree([][]int32{{1}, {2, 3}})
		var questions []Asked
		for i := range c.questions {
			questions = append(questions, Asked{Input: []int32{int32(i), 7}, Target: []int32{1}})
		}
		var done []int
		o := SearchOptions{All: c.all, MaxTokens: c.most, Done: func(n int) { done = append(done, n) }}
		if _, err := Search(context.Background(), opened{newForest(), t, c.first}, nil, nil, labels,
			questions, o); err != nil ||
			done[len(done)-1] != c.questions || c.all && done[0] != c.first || !slices.IsSorted(done) {
			t.Errorf("%+v: answered %v (%v)", c, done, err)
		}
	}
}

// opened expects a number of questions in the first pass.
type opened struct {
	*forest
	t    *testing.T
	want int
}

func (o opened) Extend(rows []batch.Row) ([]float32, error) {
	if o.rows == 0 {
		trees := map[int]bool{}
		for _, r := range rows {
			trees[r.Tree] = true
		}
		if len(trees) != o.want {
			o.t.Errorf("the first pass is of %d questions, want %d", len(trees), o.want)
		}
	}
	return o.forest.Extend(rows)
}

// fixed is a scorer and trees in one: token k has −log p = k/10, or NaN.
type fixed struct {
	*forest
	nan     bool
	prompts [][]float32 // the values of each
	passes  []int       // rows of each
	packed  []int       // rows of soft prompts in each batch
}

func (f *fixed) value(id int32) float32 {
	if f.nan {
		return float32(math.NaN())
	}
	return float32(id) / 10
}

func (f *fixed) NLL(_ []float32, b *batch.Forest) (nll []float32, err error) {
	for _, t := range b.Targets {
		nll = append(nll, f.value(t.ID))
	}
	f.packed = append(f.packed, b.Prompts)
	return nll, nil
}

func (f *fixed) AddPrompt(values []float32) (int, error) {
	f.prompts = append(f.prompts, slices.Clone(values))
	return f.forest.AddPrompt(values)
}

func (f *fixed) Extend(rows []batch.Row) (nll []float32, err error) {
	if _, err := f.forest.Extend(rows); err != nil {
		return nil, err
	}
	for _, r := range rows {
		for _, id := range r.Asked {
			nll = append(nll, f.value(id))
		}
	}
	f.passes = append(f.passes, len(rows))
	return nll, nil
}

func TestALikelihoodIsThatOfTheTokensThatSomethingPredicts(t *testing.T) {
	question := []Question{{Input: nil, Ends: [][]int32{{5, 7}, {3}}},
		{Input: []int32{1}, Ends: [][]int32{{5, 7, 2}}}}
	for _, c := range []struct {
		rows []int
		want [][]Likelihood
	}{
		{nil, [][]Likelihood{{{0.7, 1}, {0, 0}}, {{1.4, 3}}}}, // nothing predicts the first token
		{[]int{1}, [][]Likelihood{{{1.2, 2}, {0.3, 1}}, {{1.4, 3}}}},
	} {
		got, err := Score(&fixed{}, make([]float32, len(c.rows)), c.rows, question)
		if err != nil || len(got) != len(c.want) {
			t.Fatal(got, err)
		}
		for i, want := range c.want {
			for k, w := range want {
				if a := got[i][k]; len(got[i]) != len(want) || a.Tokens != w.Tokens ||
					!(math.Abs(a.NLL-w.NLL) <= 1e-6) {
					t.Errorf("prompts of %v rows: question %d, ending %d: %+v, want %+v", c.rows, i, k, a, w)
				}
			}
		}
	}
}

func TestASoftPromptIsComputedOnceForAllRequests(t *testing.T) {
	f := &fixed{}
	e := New(newSpeller(), Options{Scorer: f, ScoreTokens: 100})
	p, err := e.AddPrompt([]float32{1, 2, 3}, 3)
	if err != nil {
		t.Fatal(err)
	}
	q, err := e.AddPrompt([]float32{1, 2}, 2)
	if err != nil {
		t.Fatal(err)
	}
	request := func(p *Prompt) Request { return Request{Prompt: p, IDs: []int32{1}, Labels: [][]int32{{5}}} }
	if _, err := e.Generate(context.Background(), []Request{request(p), request(q), request(p),
		request(q)}); err != nil ||
		!slices.Equal(f.packed, []int{5}) {
		t.Errorf("batches have %v rows of soft prompts (%v), want one with 5", f.packed, err)
	}
}

func TestLabelsAfterNoInputAreScoredWithoutATree(t *testing.T) {
	f := &fixed{forest: newForest()}
	e := New(newSpeller(), Options{Scorer: f, Trees: f, ScoreTokens: 100})
	p, err := e.AddPrompt([]float32{1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Generate(context.Background(), []Request{{Prompt: p, Labels: [][]int32{{5}, {7}}}})
	if err != nil || !slices.Equal(f.packed, []int{1}) || f.passes != nil || len(got[0].Scores) != 2 {
		t.Errorf("%v (%v): batches %v, passes of trees %v", got, err, f.packed, f.passes)
	}
}

func TestASearchTakesEachPromptsValues(t *testing.T) {
	f := &fixed{forest: newForest()}
	values := []float32{1, 2, 3, 4, 5, 6, 7, 8} // of 3 rows and 1 row
	_, err := Search(context.Background(), f, values, []int{3, 1}, NewLabelTree([][]int32{{1}, {2}}),
		[]Asked{{Prompt: 0, Input: []int32{1}}, {Prompt: 1, Input: []int32{1}}}, SearchOptions{MaxTokens: 100})
	if err != nil || len(f.prompts) != 2 || !slices.Equal(f.prompts[0], values[:6]) ||
		!slices.Equal(f.prompts[1], values[6:]) {
		t.Errorf("prompts are %v (%v), want 3 rows and 1 row of 2 values", f.prompts, err)
	}
}

// The last token of a target and those of labels predict nothing, so they have no rows.
func TestASearchComputesOnlyRowsThatPredict(t *testing.T) {
	for _, c := range []struct {
		target []int32
		rows   int
	}{{nil, 2}, {[]int32{1}, 2}, {[]int32{8, 9}, 3}, {[]int32{8, 9, 7}, 4}} {
		f := &fixed{forest: newForest()}
		found, err := Search(context.Background(), f, nil, nil, NewLabelTree([][]int32{{1}, {2}}),
			[]Asked{{Input: []int32{4, 5}, Target: c.target}}, SearchOptions{MaxTokens: 100})
		if err != nil || found[0].Rows != c.rows || f.rows != c.rows || found[0].Target.Tokens != len(c.target) {
			t.Errorf("target %v: %+v (%v) of %d rows, want %d rows", c.target, found, err, f.rows, c.rows)
		}
	}
}

// What questions begin with is four tokens, after each of three prompts.
func TestWhatQuestionsBeginWithIsComputedInPassesToo(t *testing.T) {
	for most, want := range map[int][]int{3: {4, 4, 4}, 7: {4, 4, 4}, 8: {8, 4}, 11: {8, 4}, 12: {12}} {
		f := &fixed{forest: newForest()}
		var questions []Asked
		for p := range 3 {
			questions = append(questions, Asked{Prompt: p, Input: []int32{9, 9, 9, 9, 1}},
				Asked{Prompt: p, Input: []int32{9, 9, 9, 9, 2}})
		}
		_, err := Search(context.Background(), f, []float32{1, 2, 3}, []int{1, 1, 1},
			NewLabelTree([][]int32{{1}, {2}}),
			questions, SearchOptions{MaxTokens: most})
		if err != nil || len(f.passes) < len(want) || !slices.Equal(f.passes[:len(want)], want) {
			t.Errorf("at most %d tokens: passes of %v rows (%v), want first %v", most, f.passes, err, want)
		}
	}
}

// Without soft prompts the number of one is ignored, and of labels that are all NaN the first is taken.
func TestASearchWithoutPromptsOrFiniteScoresFindsTheFirstLabel(t *testing.T) {
	for _, nan := range []bool{false, true} {
		f := &fixed{forest: newForest(), nan: nan}
		found, err := Search(context.Background(), f, nil, nil, NewLabelTree([][]int32{{1, 2}, {2}, {3}}),
			[]Asked{{Prompt: 7, Input: []int32{1}}}, SearchOptions{MaxTokens: 100})
		if want := map[bool]int{false: 1, true: 0}[nan]; err != nil || found[0].Best != want {
			t.Errorf("NaN %v: found %+v (%v), want label %d", nan, found, err, want)
		}
	}
}

func TestATextEndsWhereItIsToWithoutBeingShown(t *testing.T) {
	for _, c := range []struct {
		says   string
		most   int
		text   string
		reason string
	}{
		{"one<end>two", 30, "one", FinishStop}, {"<end>two", 30, "", FinishStop}, {"abc", 30, "abc", FinishEOS},
		{"abc", 2, "ab", FinishLength}, {"abc", 1, "a", FinishLength}, {"abc", 0, "", FinishLength},
		{"abc", 3, "abc", FinishLength},
	} {
		d := newSpeller(c.says)
		got, err := New(d, Options{Decode: decode}).Generate(context.Background(),
			[]Request{{IDs: []int32{1}, MaxTokens: c.most, EOS: []int32{0}, Stop: []string{"<end>"}}})
		if err != nil || got[0].Text != c.text || got[0].FinishReason != c.reason {
			t.Errorf("%q of at most %d tokens: %+v (%v), want %q (%s)", c.says, c.most, got, err, c.text, c.reason)
		}
		if c.reason == FinishStop && d.passes > len("one<end>") {
			t.Errorf("%q went on for %d passes after its stop text", c.says, d.passes)
		}
	}
}

func TestLogprobsAreGivenIfTheyAreAskedFor(t *testing.T) {
	for asked, want := range map[int]int{0: 0, 1: 3, 2: 3} { // of abc
		e := New(newSpeller("abc"), Options{Decode: decode})
		h, err := e.Add(Request{IDs: []int32{1}, MaxTokens: 3, Logprobs: asked})
		if err != nil {
			t.Fatal(err)
		}
		for !e.Idle() {
			if err := e.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(h.Logprobs()); got != want {
			t.Errorf("%d asked for: tokens with logprobs are %d, want %d", asked, got, want)
		}
		for _, l := range h.Logprobs() { // one of them is the token itself
			if len(l.Top) != asked-1 {
				t.Errorf("%d asked for: %d others, want %d", asked, len(l.Top), asked-1)
			}
		}
	}
}

// rowed notes how many rows each step of continued texts computes.
type rowed struct {
	*speller
	rows []int
}

func (r *rowed) Next(seqs []int, ids [][]int32) ([][]float32, error) {
	n := 0
	for _, x := range ids {
		n += len(x)
	}
	r.rows = append(r.rows, n)
	return r.speller.Next(seqs, ids)
}

func TestAStepComputesAtMostGuessRows(t *testing.T) {
	for _, texts := range []int{1, 2, 3, 5} {
		r := &rowed{speller: newSpeller()}
		var requests []Request
		for range texts {
			r.says = append(r.says, strings.Repeat("ab", 30))
			requests = append(requests, Request{IDs: []int32{1}, MaxTokens: 60})
		}
		if _, err := New(r, Options{Decode: decode, GuessRows: 8}).Generate(context.Background(),
			requests); err != nil {
			t.Fatal(err)
		}
		if want := 8 / texts * texts; slices.Max(r.rows) != want {
			t.Errorf("%d texts: steps of %v rows, want at most %d", texts, r.rows, want)
		}
	}
}

// A seed draws the same numbers in later versions.
func TestASeedAndAStreamDrawTheirNumbers(t *testing.T) {
	for _, stream := range []uint64{0, 1, 65535, 65536, 200_000} {
		want := rand.New(rand.NewPCG(7+stream>>16*0x9e3779b97f4a7c15, 0x73616d706c65+stream<<48)).Float64()
		if got := newSampler(Sampling{Seed: 7, Stream: int(stream)}).r.Float64(); got != want {
			t.Errorf("stream %d: drew %g, want %g", stream, got, want)
		}
	}
}

func TestTokensAreTakenUpToTheirShareOfTheProbability(t *testing.T) {
	if got := newSampler(Sampling{}).next([]float32{1, 3, 3, 2}, nil, nil); got != 1 {
		t.Errorf("greedy took token %d, want 1, the first of the likeliest", got)
	}
	for _, c := range []struct {
		topP, u float64
		want    int32
	}{
		{0, 0, 0}, {0, 0.49, 0}, {0, 0.5, 1}, {0, 0.99, 1}, // two tokens, equally likely
		{0.5, 0.99, 0}, {0.51, 0.99, 1}, // the first reaches a half
	} {
		s := newSampler(Sampling{Temperature: 1, TopP: c.topP})
		if got := s.drawSorted([]float32{2, 2}, c.u); got != c.want {
			t.Errorf("%+v: token %d", c, got)
		}
	}
}
