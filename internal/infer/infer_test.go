package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ptune/internal/batch"
)

// speller is a decoder whose token ids are bytes, with 0 as the end token. Each new text takes the
// next string of says and is continued with its bytes. After any other byte the likeliest is ?.
type speller struct {
	says    []string // of the texts to come
	texts   map[int]*spelled
	most    int // texts at a time
	last    int
	passes  int
	reads   []int // tokens of each call of Read
	logits  func(says string, fed []int32) []float32
	prompts map[int]bool
}

type spelled struct {
	batch.Text
	says string
	fed  []int32
}

func newSpeller(says ...string) *speller {
	return &speller{says: says, texts: map[int]*spelled{}, most: 100, logits: spell,
		prompts: map[int]bool{}}
}

func spell(says string, fed []int32) []float32 {
	l := make([]float32, 256)
	for i, id := range fed {
		if i >= len(says) || byte(id) != says[i] {
			l['?'] = 9
		}
	}
	if len(fed) < len(says) {
		l[says[len(fed)]] = 5
	} else {
		l[0] = 5
	}
	return l
}

func (s *speller) AddPrompt([]float32) (int, error) {
	s.last++
	s.prompts[s.last] = true
	return s.last, nil
}

func (s *speller) RemovePrompt(p int) { delete(s.prompts, p) }

func (s *speller) Check(t batch.Text) error {
	if t.Prompt != batch.NoPrompt && !s.prompts[t.Prompt] {
		return errors.New("no such prompt")
	}
	if len(t.IDs) == 1 && t.IDs[0] < 0 {
		return errors.New("bad token")
	}
	return nil
}

func (s *speller) Add(texts []batch.Text) (seqs []int, logits [][]float32, err error) {
	for _, t := range texts {
		if err := s.Check(t); err != nil {
			return nil, nil, err
		}
	}
	if len(s.texts)+len(texts) > s.most {
		return nil, nil, fmt.Errorf("%w: too many texts", batch.ErrFull)
	}
	for _, t := range texts {
		s.last++
		s.texts[s.last] = &spelled{t, s.says[0], nil}
		seqs, logits, s.says = append(seqs, s.last), append(logits, s.logits(s.says[0], nil)), s.says[1:]
	}
	return seqs, logits, nil
}

func (s *speller) Next(seqs []int, ids [][]int32) (out [][]float32, err error) {
	s.passes++
	for k, seq := range seqs {
		if len(ids[k]) == 0 || len(ids[k]) > s.Room(seq) {
			return nil, fmt.Errorf("%d more tokens in room for %d", len(ids[k]), s.Room(seq))
		}
		t := s.texts[seq]
		for _, id := range ids[k] {
			t.fed = append(t.fed, id)
			out = append(out, s.logits(t.says, t.fed))
		}
	}
	return out, nil
}

// Read notes how many tokens of inputs a call adds. Those are no part of what the text says.
func (s *speller) Read(seqs []int, ids [][]int32) (out [][]float32, err error) {
	tokens := 0
	for k, seq := range seqs {
		t := s.texts[seq]
		if tokens += len(ids[k]); len(ids[k]) == 0 || len(ids[k]) > s.Room(seq) {
			return nil, fmt.Errorf("%d more tokens in room for %d", len(ids[k]), s.Room(seq))
		}
		t.IDs, t.Text.Room = slices.Concat(t.IDs, ids[k]), t.Text.Room-len(ids[k])
		out = append(out, s.logits(t.says, nil))
	}
	s.reads = append(s.reads, tokens)
	return out, nil
}

func (s *speller) Drop(seq, n int) {
	t := s.texts[seq]
	t.fed = t.fed[:len(t.fed)-n]
}

// Room returns the unused part of the tokens that a text requested, at most 1,000 in all.
func (s *speller) Room(seq int) int {
	t := s.texts[seq]
	return min(t.Text.Room, 1000) - len(t.fed)
}

func (s *speller) Remove(seq int) { delete(s.texts, seq) }

func decode(ids []int32) string {
	var b []byte
	for _, id := range ids {
		b = append(b, byte(id))
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

// run continues inputs with the texts in says. Request r has the options.
func run(t *testing.T, d *speller, o Options, r Request, inputs ...[]int32) ([]Result, []string) {
	t.Helper()
	o.Decode = decode
	shown := make([]string, len(d.says))
	requests := make([]Request, len(d.says))
	for i := range requests {
		requests[i] = r
		if requests[i].Stream = i; inputs != nil {
			requests[i].IDs = inputs[i]
		}
		requests[i].EOS = []int32{0}
		requests[i].Show = func(piece string) {
			if strings.Contains(piece, "\ufffd") {
				t.Errorf("shown %q, which is not valid UTF-8", piece)
			}
			shown[i] += piece
		}
	}
	e := New(d, o)
	results, err := e.Generate(context.Background(), requests)
	if err != nil {
		t.Fatal(err)
	}
	if !e.Idle() || len(d.texts) > 0 {
		t.Errorf("%d texts are left in the decoder, want 0", len(d.texts))
	}
	return results, shown
}

func TestTextsEndAtTheEndTokenAStopTextOrTheirLength(t *testing.T) {
	d := newSpeller("short", "one<end>two", "a much longer text", "half <en", "x#y##z", "")
	r, shown := run(t, d, Options{}, Request{MaxTokens: 12, Stop: []string{"<end>", "##"}})
	for i, want := range []Result{
		{Text: "short", FinishReason: FinishEOS}, {Text: "one", FinishReason: FinishStop},
		{Text: "a much longe", FinishReason: FinishLength}, {Text: "half <en", FinishReason: FinishEOS},
		{Text: "x#y", FinishReason: FinishStop}, {Text: "", FinishReason: FinishEOS},
	} {
		if r[i].Text != want.Text || r[i].FinishReason != want.FinishReason || shown[i] != want.Text {
			t.Errorf("text %d: %q (%s), shown %q, want %q (%s)", i, r[i].Text, r[i].FinishReason,
				shown[i],
				want.Text, want.FinishReason)
		}
	}
}

func TestCharactersAreShownWhole(t *testing.T) {
	r, shown := run(t, newSpeller("aé🦙z"), Options{}, Request{MaxTokens: 50})
	if r[0].Text != "aé🦙z" || shown[0] != r[0].Text {
		t.Errorf("text is %q, shown %q, want aé🦙z", r[0].Text, shown[0])
	}
}

// As with the tokens of single bytes in Llama's vocabulary: a byte that is wrong makes U+FFFD of all that
// follow each other, also of those that were right before it came. Here they are the capitals, and
// all bytes above 127.
func TestBytesAreShownWhenNoneCanFollowThemAnyMore(t *testing.T) {
	single := func(id int32) bool { return id >= 'A' && id <= 'Z' || id > 127 }
	o := Options{
		Decode: func(ids []int32) (text string) {
			for len(ids) > 0 {
				n := 0
				for n < len(ids) && single(ids[n]) {
					n++
				}
				if run := decode(ids[:n]); strings.Contains(run, "\ufffd") {
					text += strings.Repeat("\ufffd", n)
				} else {
					text += run
				}
				if ids = ids[n:]; len(ids) > 0 {
					text, ids = text+decode(ids[:1]), ids[1:]
				}
			}
			return text
		},
		Unsettled: func(ids []int32) (n int) {
			for n < len(ids) && single(ids[len(ids)-1-n]) {
				n++
			}
			return n
		},
	}
	for says, want := range map[string]string{
		"aBC\xe2d": "a\ufffd\ufffd\ufffdd", "aB\xe2\x82\xac": "aB€", "A\xe2\x82": "\ufffd\ufffd\ufffd", "ABcD": "ABcD",
	} {
		shown, d := "", newSpeller(says)
		e := New(d, o)
		got, err := e.Generate(context.Background(), []Request{{IDs: []int32{'x'}, MaxTokens: 9,
			EOS: []int32{0}, Show: func(s string) {
				if !utf8.ValidString(s) {
					t.Errorf("%q: shown %q, which is not valid UTF-8", says, s)
				}
				shown += s
			}}})
		if err != nil || got[0].Text != want || shown != want {
			t.Errorf("%q: text %q, shown %q (%v), want %q", says, got[0].Text, shown, err, want)
		}
	}
}

func TestATextWithNoRoomLeftEnds(t *testing.T) {
	long := strings.Repeat("abc", 400)
	for _, rows := range []int{0, 8} {
		r, shown := run(t, newSpeller(long, "xy"), Options{GuessRows: rows}, Request{MaxTokens: 5000})
		if r[0].FinishReason != FinishLength || r[0].Text != long[:1001] || shown[0] != r[0].Text ||
			r[1].Text != "xy" {
			t.Errorf("%d rows: %d bytes (%s), %d shown", rows, len(r[0].Text), r[0].FinishReason,
				len(shown[0]))
		}
	}
}

func TestGuessesContinueAnEarlierOccurrence(t *testing.T) {
	for _, c := range []struct {
		said string
		most int
		want string
	}{
		{"the cat and the", 4, " cat"}, {"abcab", 2, "ca"}, {"aaa", 3, "aaa"}, {"ababab", 5, "ababa"},
		{"xab1ab2ab", 1, "2"},
		{"abcd", 3, ""}, {"aba", 3, ""}, {"ab", 3, ""}, {"", 3, ""}, {"aaaa", 0, ""}, {"aaaa", -1, ""},
	} {
		var ids []int32
		for _, b := range []byte(c.said) {
			ids = append(ids, int32(b))
		}
		if got := decode(guess(ids, 2, c.most)); got != c.want {
			t.Errorf("after %q: guessed %q, want %q", c.said, got, c.want)
		}
	}
}

// In a text of random letters most guesses are wrong. After some of them, few are made.
func TestWrongGuessesMakeGuessesRare(t *testing.T) {
	says := ""
	r := rand.New(rand.NewPCG(1, 2))
	for range 600 {
		says += string(rune('a' + r.IntN(10)))
	}
	guesses := 0
	d := newSpeller(says)
	d.logits = func(says string, fed []int32) []float32 {
		if n := len(fed); n > 0 && n <= len(says) && byte(fed[n-1]) != says[n-1] {
			guesses++
		}
		return spell(says, fed)
	}
	run(t, d, Options{GuessRows: 2}, Request{MaxTokens: 1000})
	if guesses == 0 || guesses > 120 {
		t.Errorf("%d wrong guesses in %d letters, want between 1 and 120", guesses, len(says))
	}
}

// The results are the same if guesses are right, wrong or after the end.
func TestGuessesChangeOnlyTheNumberOfPasses(t *testing.T) {
	says := []string{"one two one two one two one two one two three", "no more, no less, no more"}
	for name, r := range map[string]Request{
		"to the end":  {MaxTokens: 80},
		"to a length": {MaxTokens: 21},
		"to a stop":   {MaxTokens: 80, Stop: []string{"two one two t"}},
		"sampled":     {MaxTokens: 80, Sampling: Sampling{Temperature: 1.5, TopK: 20, Seed: 7}},
	} {
		for n := 1; n <= len(says); n++ {
			var want []Result
			var passes []int
			for _, rows := range []int{0, 4, 9} {
				d := newSpeller(says[:n]...)
				if name == "sampled" { // two likely bytes after each, which follow from the last two
					d.logits = func(_ string, fed []int32) []float32 {
						l := make([]float32, 256)
						at := 1
						for _, id := range fed[max(0, len(fed)-2):] {
							at = (at*7 + int(id)) % 5
						}
						l['a'+at], l['a'+(at+1)%5] = 9, 7
						return l
					}
				}
				got, shown := run(t, d, Options{GuessRows: rows}, r, []int32{'t', 'w', 'o', ' '}, nil)
				for i, r := range got {
					if want != nil && (r.Text != want[i].Text || !slices.Equal(r.IDs, want[i].IDs) ||
						r.FinishReason != want[i].FinishReason) || r.Text != shown[i] {
						t.Errorf("%s, %d texts, %d rows: %q (%s), shown %q, want %q (%s)", name, n,
							rows, r.Text,
							r.FinishReason, shown[i], want[i].Text, want[i].FinishReason)
					}
				}
				if want == nil {
					want = got
				}
				passes = append(passes, d.passes)
			}
			if passes[1] > passes[0]*9/10 || passes[2] > passes[1] {
				t.Errorf("%s, %d texts: %d passes, with guesses %v", name, n, passes[0], passes[1:])
			}
		}
	}
}

// As requests join, leave and are cancelled at random, each ends as it does alone. Soft prompts that
// were removed are forgotten after their last request.
func TestRequestsThatJoinAndLeaveEndAsTheyDoAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	d := newSpeller()
	d.most = 5
	e := New(d, Options{Decode: decode, Texts: 7, GuessRows: 4})
	prompts := make([]*Prompt, 3) // nil: none
	for i := range 2 {
		var err error
		if prompts[i], err = e.AddPrompt(make([]float32, 4), 2); err != nil {
			t.Fatal(err)
		}
	}
	type asked struct {
		*Handle
		says  string
		shown string
		gone  bool
	}
	var all []*asked
	for len(all) < 200 || !e.Idle() {
		for len(all) < 200 && r.IntN(3) == 0 {
			x := &asked{says: strings.Repeat("ab<end>c"[:1+r.IntN(8)], 1+r.IntN(4))}
			d.says = append(d.says, x.says)
			h, err := e.Add(Request{Prompt: prompts[r.IntN(3)], IDs: []int32{1},
				MaxTokens: 1 + r.IntN(25),
				EOS:       []int32{0}, Stop: []string{"<end>"}, Show: func(s string) { x.shown += s }})
			if err != nil {
				t.Fatal(err)
			}
			x.Handle = h
			all = append(all, x)
		}
		if x := r.IntN(len(all) + 1); x < len(all) && r.IntN(8) == 0 &&
			slices.Contains(e.running, all[x].Handle) {
			e.Cancel(all[x].Handle)
			all[x].gone = true
		}
		if len(all) >= 150 && prompts[0] != prompts[1] {
			e.RemovePrompt(prompts[0])
			prompts[0] = prompts[1]
		}
		if err := e.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(d.texts) > d.most || len(d.texts) != len(e.running) {
			t.Fatalf("%d texts are in work, the engine has %d", len(d.texts), len(e.running))
		}
	}
	for i, x := range all {
		got, err := x.Result()
		if x.gone {
			if got != nil || err != context.Canceled {
				t.Errorf("request %d was cancelled: got result %v, error %v", i, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("request %d: %v", i, err)
			continue
		}
		alone, _ := run(t, newSpeller(x.says), Options{}, Request{MaxTokens: x.MaxTokens, Stop: x.Stop})
		if want := alone[0]; got.Text != want.Text || got.FinishReason != want.FinishReason ||
			x.shown != want.Text {
			t.Errorf("request %d: %q (%s), shown %q, alone %q (%s)", i, got.Text, got.FinishReason,
				x.shown,
				want.Text, want.FinishReason)
		}
	}
	if len(d.prompts) != 1 {
		t.Errorf("%d prompts are registered, want only the one that was not removed", len(d.prompts))
	}
}

// counting counts the calls that begin texts.
type counting struct {
	*speller
	adds int
}

func (c *counting) Add(texts []batch.Text) ([]int, [][]float32, error) {
	c.adds++
	return c.speller.Add(texts)
}

// Where more texts wait than there is room for, some are begun together; a few that wait are begun at
// once.
func TestTextsAreBegunTogether(t *testing.T) {
	for _, c := range []struct{ texts, adds int }{{40, 10}, {9, 2}, {8, 1}} {
		d := &counting{speller: newSpeller()}
		var requests []Request
		for i := range c.texts {
			d.says = append(d.says, strings.Repeat("x", 3+i%5))
			requests = append(requests, Request{IDs: []int32{1}, MaxTokens: 20, EOS: []int32{0}})
		}
		got, err := New(d, Options{Texts: 8, Decode: decode}).Generate(context.Background(), requests)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if len(r.Text) != 3+i%5 {
				t.Errorf("text %d is %q", i, r.Text)
			}
		}
		if d.adds > 2+c.adds*3/2 || d.adds < c.adds {
			t.Errorf("%d texts were begun in %d calls, want about %d", c.texts, d.adds, c.adds)
		}
	}
}

func TestWithoutALimitTextsJoinAtOnce(t *testing.T) {
	d := &counting{speller: newSpeller("a long text", "short")}
	e := New(d, Options{Decode: decode})
	for i := range 2 {
		if _, err := e.Add(Request{IDs: []int32{1}, MaxTokens: 20, EOS: []int32{0}}); err != nil {
			t.Fatal(err)
		}
		if err := e.Step(context.Background()); err != nil || len(e.running) != i+1 {
			t.Errorf("%d texts are in work (%v), want %d", len(e.running), err, i+1)
		}
	}
}

func TestRequestsThatCannotBeAnsweredAreRefused(t *testing.T) {
	d := newSpeller("x")
	e := New(d, Options{Decode: decode})
	if _, err := e.Add(Request{IDs: []int32{-1}, MaxTokens: 3}); err == nil ||
		err.Error() != "bad token" {
		t.Errorf("a bad token: error is %v, want bad token", err)
	}
	d.most = 0
	h, err := e.Add(Request{IDs: []int32{1}, MaxTokens: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Step(context.Background()); err != nil || !e.Idle() {
		t.Errorf("a request that does not fit yet ended the step: error %v", err)
	}
	if _, err := h.Result(); err == nil || !strings.Contains(err.Error(), "too many texts") {
		t.Errorf("a text that never fits: error is %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d.most = 1
	if _, err := e.Generate(ctx, []Request{{IDs: []int32{1}, MaxTokens: 3}}); err != context.Canceled ||
		!e.Idle() {
		t.Errorf("a cancelled context: error is %v, idle %v; want context.Canceled, true", err, e.Idle())
	}
}

// unlikely returns −log p = k/10 for token k, plus the first value of the text's soft prompt.
type unlikely struct{ forests int }

func (u *unlikely) NLL(prompts []float32, f *batch.Forest) (nll []float32, err error) {
	u.forests++
	for _, t := range f.Targets {
		v := float32(t.ID) / 10
		if row := t.Row; len(prompts) > 0 {
			for i, s := range f.Segments {
				if row >= s.Row && row < s.Row+s.Len {
					for row = i; f.Segments[row].Parent >= 0; {
						row = f.Segments[row].Parent
					}
					v += prompts[f.Segments[row].Row]
					break
				}
			}
		}
		nll = append(nll, v)
	}
	return nll, nil
}

func TestLabelsAreScoredAfterEachRequestsOwnPrompt(t *testing.T) {
	for _, tokens := range []int{1, 9, 1000} {
		u := &unlikely{}
		e := New(newSpeller("ok"), Options{Decode: decode, Scorer: u, ScoreTokens: tokens})
		one, _ := e.AddPrompt([]float32{1}, 1)
		two, _ := e.AddPrompt([]float32{2, 2}, 2)
		labels := LabelEnds([][]int32{{5}, {5, 7}}, 9)
		got, err := e.Generate(context.Background(), []Request{
			{Prompt: two, IDs: []int32{3}, Labels: labels}, {IDs: []int32{3}, Labels: labels},
			{IDs: []int32{1}, MaxTokens: 9, EOS: []int32{0}},
			{Prompt: one, IDs: []int32{3, 4}, Labels: labels},
			{Prompt: two, IDs: []int32{4}, Labels: labels[:1]},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range [][]float64{{5.4, 8.1}, {1.4, 2.1}, nil, {3.4, 5.1}, {5.4}} {
			for k, w := range want {
				if !(math.Abs(got[i].Scores[k]-w) <= 1e-6) {
					t.Errorf("request %d, label %d: %g, want %g", i, k, got[i].Scores[k], w)
				}
			}
			if len(got[i].Scores) != len(want) {
				t.Errorf("request %d has %d scores, want %d", i, len(got[i].Scores), len(want))
			}
		}
		if got[2].Text != "ok" {
			t.Errorf("the text of the request between them is %q", got[2].Text)
		}
		if tokens == 1000 && u.forests != 3 || tokens == 1 && u.forests != 4 {
			t.Errorf("%d tokens at a time: %d passes", tokens, u.forests)
		}
	}
}

func TestShowMayCancelItsOwnRequestAndOthers(t *testing.T) {
	for _, c := range []struct{ victim, piece int }{
		{0, 1}, {1, 1}, {2, 1}, // as the requests join
		{0, 3}, {1, 3}, {2, 3}, // in a later step
	} {
		victim := c.victim
		d := newSpeller("one one one one", "two two two two", "red red red red")
		e := New(d, Options{Decode: decode, GuessRows: 8})
		p, err := e.AddPrompt(make([]float32, 4), 2)
		if err != nil {
			t.Fatal(err)
		}
		handles := make([]*Handle, 3)
		for i := range handles {
			r := Request{Prompt: p, IDs: []int32{1}, MaxTokens: 30, EOS: []int32{0}}
			if i == 1 {
				pieces := 0
				r.Show = func(string) {
					if pieces++; pieces == c.piece {
						e.Cancel(handles[victim])
					}
				}
			}
			if handles[i], err = e.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		e.RemovePrompt(p)
		e.RemovePrompt(p) // a second time changes nothing
		for !e.Idle() {
			if err := e.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		for i, h := range handles {
			if r, err := h.Result(); i == victim && err != context.Canceled || i != victim && r == nil {
				t.Errorf(
					"text 1 cancels text %d at piece %d: text %d has the result %v and the error %v",
					victim, c.piece, i, r, err)
			}
		}
		if len(d.texts) > 0 || len(d.prompts) > 0 {
			t.Errorf("%d texts and %d prompts are left", len(d.texts), len(d.prompts))
		}
	}
}

// failing refuses the token 66.
type failing struct{ unlikely }

func (f *failing) NLL(prompts []float32, forest *batch.Forest) ([]float32, error) {
	if slices.Contains(forest.IDs, 66) {
		return nil, errors.New("there is no token 66")
	}
	return f.unlikely.NLL(prompts, forest)
}

func TestLabelsThatCannotBeScoredFailAlone(t *testing.T) {
	e := New(newSpeller("ok"), Options{Decode: decode})
	if _, err := e.Add(Request{IDs: []int32{1}, Labels: [][]int32{{5}}}); err == nil {
		t.Error("an engine without a scorer took labels")
	}
	e = New(newSpeller("ok"), Options{Decode: decode, Scorer: &failing{}, ScoreTokens: 100})
	var handles []*Handle
	for _, r := range []Request{
		{IDs: []int32{1, 2}, Labels: [][]int32{{5, 6}}},
		{IDs: []int32{1, 66}, Labels: [][]int32{{5, 6}}},
		{IDs: []int32{1}, MaxTokens: 9, EOS: []int32{0}},
		{IDs: []int32{3, 4}, Labels: [][]int32{{5, 6}}},
	} {
		h, err := e.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	for !e.Idle() {
		if err := e.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for i, h := range handles {
		if r, err := h.Result(); (err != nil) != (i == 1) || (r == nil) != (i == 1) {
			t.Errorf(
				"request %d has the result %v and the error %v; only request 1 cannot be answered", i, r, err)
		}
	}
}
