package generate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// speller continues text i with the bytes of says[i]: token ids are bytes, 0 ends. Behind anything else it says something else.
type speller struct {
	says   []string
	fed    [][]int32
	most   int
	passes int
	logits func(says string, fed []int32) []float32
}

func newSpeller(most int, says ...string) (*speller, [][]float32) {
	s := &speller{says: says, fed: make([][]int32, len(says)), most: most, logits: spell}
	return s, s.first()
}

func (s *speller) first() (first [][]float32) {
	for _, says := range s.says {
		first = append(first, s.logits(says, nil))
	}
	return first
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

func (s *speller) Next(texts []int, ids [][]int32) (out [][]float32, err error) {
	s.passes++
	for k, i := range texts {
		if len(ids[k]) == 0 || len(ids[k]) > s.Room(i) {
			return nil, fmt.Errorf("%d tokens more, and room for %d", len(ids[k]), s.Room(i))
		}
		for _, id := range ids[k] {
			s.fed[i] = append(s.fed[i], id)
			out = append(out, s.logits(s.says[i], s.fed[i]))
		}
	}
	return out, nil
}

func (s *speller) Drop(i, n int) { s.fed[i] = s.fed[i][:len(s.fed[i])-n] }

func (s *speller) Room(i int) int { return s.most - len(s.fed[i]) }

func decode(_ int, ids []int32) string {
	var b []byte
	for _, id := range ids {
		b = append(b, byte(id))
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

func run(t *testing.T, o Options, most int, says ...string) ([]Result, []string) {
	t.Helper()
	d, first := newSpeller(most, says...)
	shown := make([]string, len(says))
	o.EOS = []int32{0}
	r, err := Run(context.Background(), d, first, func(int) []int32 { return nil }, decode, o, func(i int, piece string) {
		if strings.Contains(piece, "\ufffd") {
			t.Errorf("half a character was shown: %q", piece)
		}
		shown[i] += piece
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, shown
}

func TestTextsEndAtTheEndTokenAStopTextOrTheirLength(t *testing.T) {
	r, shown := run(t, Options{MaxTokens: 12, Stop: []string{"<end>", "##"}}, 100, "short", "one<end>two", "a much longer text", "half <en", "x#y##z", "")
	for i, want := range []Result{{"short", nil, FinishEOS}, {"one", nil, FinishStop}, {"a much longe", nil, FinishLength}, {"half <en", nil, FinishEOS}, {"x#y", nil, FinishStop}, {"", nil, FinishEOS}} {
		if r[i].Text != want.Text || r[i].FinishReason != want.FinishReason || shown[i] != want.Text {
			t.Errorf("text %d: %q (%s), shown %q, want %q (%s)", i, r[i].Text, r[i].FinishReason, shown[i], want.Text, want.FinishReason)
		}
	}
}

func TestCharactersAreShownWhole(t *testing.T) {
	r, shown := run(t, Options{MaxTokens: 50}, 100, "aé🦙z")
	if r[0].Text != "aé🦙z" || shown[0] != r[0].Text {
		t.Errorf("text is %q, shown %q", r[0].Text, shown[0])
	}
}

func TestATextWithNoRoomLeftEnds(t *testing.T) {
	for _, rows := range []int{0, 8} {
		r, shown := run(t, Options{MaxTokens: 50, Rows: rows}, 11, "abcabcabcabcabcd", "xy")
		if r[0].FinishReason != FinishLength || r[0].Text != "abcabcabcabc" || shown[0] != r[0].Text || r[1].Text != "xy" {
			t.Errorf("results are %+v, shown %q", r, shown)
		}
	}
}

func TestGuessesAreWhatATextHasSaidBefore(t *testing.T) {
	for _, c := range []struct {
		said string
		most int
		want string
	}{
		{"the cat and the", 4, " cat"}, {"abcab", 2, "ca"}, {"aaa", 3, "aaa"}, {"ababab", 5, "ababa"}, {"xab1ab2ab", 1, "2"},
		{"abcd", 3, ""}, {"aba", 3, ""}, {"ab", 3, ""}, {"", 3, ""}, {"aaaa", 0, ""}, {"aaaa", -1, ""},
	} {
		var ids []int32
		for _, b := range []byte(c.said) {
			ids = append(ids, int32(b))
		}
		if got := decode(0, guess(ids, 2, c.most)); got != c.want {
			t.Errorf("after %q: guessed %q, want %q", c.said, got, c.want)
		}
	}
}

// Pairs of letters that go on at random are left alone after a while.
func TestGuessesThatAreWrongTimeAndAgainBecomeRare(t *testing.T) {
	says := ""
	r := rand.New(rand.NewPCG(1, 2))
	for range 600 {
		says += string(rune('a' + r.IntN(10)))
	}
	guesses := 0
	d, _ := newSpeller(1000, says)
	d.logits = func(says string, fed []int32) []float32 {
		if n := len(fed); n > 0 && n <= len(says) && byte(fed[n-1]) != says[n-1] {
			guesses++
		}
		return spell(says, fed)
	}
	if _, err := Run(context.Background(), d, d.first(), func(int) []int32 { return nil }, decode, Options{MaxTokens: 1000, EOS: []int32{0}, Rows: 2}, nil); err != nil {
		t.Fatal(err)
	}
	if guesses == 0 || guesses > 120 {
		t.Errorf("%d wrong guesses in %d letters, want some, and at most 120", guesses, len(says))
	}
}

// The same texts come of it, whether guesses are right, wrong, or behind the end.
func TestGuessesChangeNothingButThePasses(t *testing.T) {
	says := []string{"one two one two one two one two one two three", "no more, no less, no more"}
	for name, o := range map[string]Options{
		"to the end":  {MaxTokens: 80},
		"to a length": {MaxTokens: 21},
		"to a stop":   {MaxTokens: 80, Stop: []string{"two one two t"}},
		"sampled":     {MaxTokens: 80, Sampling: Sampling{Temperature: 1.5, TopK: 20, Seed: 7}},
	} {
		for n := 1; n <= len(says); n++ {
			var want []Result
			var passes []int
			for _, rows := range []int{0, 4, 9} {
				d, _ := newSpeller(100, says[:n]...)
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
				said := func(i int) []int32 { return [][]int32{{'t', 'w', 'o', ' '}, nil}[i] }
				o.EOS, o.Rows = []int32{0}, rows
				shown := make([]string, n)
				got, err := Run(context.Background(), d, d.first(), said, decode, o, func(i int, piece string) { shown[i] += piece })
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range got {
					if want != nil && (r.Text != want[i].Text || !slices.Equal(r.IDs, want[i].IDs) || r.FinishReason != want[i].FinishReason) || r.Text != shown[i] {
						t.Errorf("%s, %d texts, %d rows: %q (%s), shown %q, want %q (%s)", name, n, rows, r.Text, r.FinishReason, shown[i], want[i].Text, want[i].FinishReason)
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

func TestGreedyTakesTheLikeliestAndSamplingKeepsToItsLimits(t *testing.T) {
	logits := []float32{0, 3, 2, 1, -50}
	if id := newSampler(Sampling{}, 0).next(logits); id != 1 {
		t.Errorf("greedy took %d", id)
	}
	for name, c := range map[string]struct {
		s     Sampling
		among []int32
	}{
		"top-k 2":     {Sampling{Temperature: 5, TopK: 2}, []int32{1, 2}},
		"top-p .6":    {Sampling{Temperature: 1, TopP: 0.6}, []int32{1}}, // p(1) is 0.64
		"top-p .7":    {Sampling{Temperature: 1, TopP: 0.7}, []int32{1, 2}},
		"temperature": {Sampling{Temperature: 3, TopP: 1}, []int32{0, 1, 2, 3}},
	} {
		var seen []int32
		s := newSampler(c.s, 0)
		for range 500 {
			if id := s.next(logits); !slices.Contains(seen, id) {
				seen = append(seen, id)
			}
		}
		slices.Sort(seen)
		if !slices.Equal(seen, c.among) {
			t.Errorf("%s took %v, want %v", name, seen, c.among)
		}
	}
}

func TestSamplingFollowsTheProbabilities(t *testing.T) {
	logits := []float32{0, 1, 2}
	s, n := newSampler(Sampling{Temperature: 0.5, TopP: 1}, 0), 20000
	count := make([]float64, 3)
	for range n {
		count[s.next(logits)]++
	}
	z := 1 + math.Exp(2) + math.Exp(4)
	for i, want := range []float64{1 / z, math.Exp(2) / z, math.Exp(4) / z} {
		if got := count[i] / float64(n); math.Abs(got-want) > 0.015 {
			t.Errorf("token %d was taken with %g, want %g", i, got, want)
		}
	}
}

func TestATextsDrawsDoNotDependOnItsNeighbours(t *testing.T) {
	draw := func(text int) (ids []int32) {
		s := newSampler(Sampling{Temperature: 9, Seed: 4}, text)
		for range 20 {
			ids = append(ids, s.next(make([]float32, 1000)))
		}
		return ids
	}
	if !slices.Equal(draw(1), draw(1)) || slices.Equal(draw(0), draw(1)) {
		t.Error("draws do not follow seed and text")
	}
}
