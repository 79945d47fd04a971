package generate

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
)

// speller continues text i with the bytes of says[i]: token ids are bytes, 0 ends.
type speller struct {
	says []string
	at   []int
	most int
}

func newSpeller(most int, says ...string) (*speller, [][]float32) {
	s := &speller{says: says, at: make([]int, len(says)), most: most}
	var first [][]float32
	for i := range says {
		first = append(first, s.logits(i))
	}
	return s, first
}

func (s *speller) logits(i int) []float32 {
	l := make([]float32, 256)
	if s.at[i] < len(s.says[i]) {
		l[s.says[i][s.at[i]]] = 5
	} else {
		l[0] = 5
	}
	s.at[i]++
	return l
}

func (s *speller) Next(texts []int, _ []int32) (out [][]float32, err error) {
	for _, i := range texts {
		out = append(out, s.logits(i))
	}
	return out, nil
}

func (s *speller) Full(i int) bool { return s.at[i] > s.most }

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
	r, err := Run(context.Background(), d, first, decode, o, func(i int, piece string) {
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
	r, shown := run(t, Options{MaxTokens: 50}, 3, "abcdefgh", "xy")
	if r[0].FinishReason != FinishLength || r[0].Text != "abc" && r[0].Text != "abcd" || shown[0] != r[0].Text || r[1].Text != "xy" {
		t.Errorf("results are %+v, shown %q", r, shown)
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
