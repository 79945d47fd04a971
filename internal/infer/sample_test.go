package infer

import (
	"encoding/json"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// goldens is a file that make peer computed with transformers from random logits.
var goldens = flag.String("goldens", "../../testdata/sampling.json", "file made by testdata/sampling.py")

func TestProbabilitiesOfTokensEqualTransformers(t *testing.T) {
	data, err := os.ReadFile(*goldens)
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Logits            []float32
		IDs               []int32
		Probabilities     []float64
		Temperature       float64
		TopK              int     `json:"top_k"`
		TopP              float64 `json:"top_p"`
		MinP              float64 `json:"min_p"`
		RepetitionPenalty float64 `json:"repetition_penalty"`
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 60 {
		t.Errorf("found %d cases, want 60", len(cases))
	}
	for i, c := range cases {
		s := newSampler(Sampling{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, MinP: c.MinP,
			RepetitionPenalty: c.RepetitionPenalty})
		const n = 400 // the share of a token is the share of u that chooses it
		sorted, drawn := make([]float64, len(c.Logits)), make([]float64, len(c.Logits))
		logits := s.penalise(c.Logits, c.IDs[:1], c.IDs[1:])
		for k := range n {
			u := (float64(k) + 0.5) / n
			id := s.drawSorted(logits, u)
			sorted[id] += 1. / n
			if fast, sure := s.draw(logits, u); sure {
				id = fast
			}
			drawn[id] += 1. / n
		}
		for id, want := range c.Probabilities {
			if !(math.Abs(sorted[id]-want) <= 1.5/n) || !(math.Abs(drawn[id]-want) <= 1.5/n) {
				t.Errorf("case %d: token %d has probability %g, drawn %g, want %g", i, id, sorted[id], drawn[id],
					want)
			}
		}
		greedy := newSampler(Sampling{RepetitionPenalty: c.RepetitionPenalty}).next(c.Logits, nil, c.IDs)
		if want := slices.Index(c.Probabilities, slices.Max(c.Probabilities)); int(greedy) != want {
			t.Errorf("case %d: greedy takes token %d, want %d", i, greedy, want)
		}
	}
}

func TestGreedyTakesTheLikeliestTokenAndSamplingObeysItsLimits(t *testing.T) {
	logits := []float32{0, 3, 2, 1, -50}
	if id := newSampler(Sampling{}).next(logits, nil, nil); id != 1 {
		t.Errorf("greedy took token %d", id)
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
		s := newSampler(c.s)
		for range 500 {
			if id := s.next(logits, nil, nil); !slices.Contains(seen, id) {
				seen = append(seen, id)
			}
		}
		slices.Sort(seen)
		if !slices.Equal(seen, c.among) {
			t.Errorf("%s: took tokens %v, want %v", name, seen, c.among)
		}
	}
}

// Only choices that are in doubt are made by sorting.
func TestDrawingWithoutSortingTakesTheSameTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	sure, all := 0, 0
	for n := range 1000 {
		logits := make([]float32, 1+r.IntN(600))
		spread := math.Exp(r.NormFloat64() * 2)
		grid := float64(r.IntN(2)) * math.Exp(r.NormFloat64())
		for i := range logits {
			v := r.NormFloat64() * spread
			if grid > 0 { // equal logits
				v = math.Round(v/grid) * grid
			}
			logits[i] = float32(v)
		}
		if n%7 == 0 {
			logits[r.IntN(len(logits))] = float32(math.Inf(-1))
			logits[r.IntN(len(logits))] = -math.MaxFloat32
		}
		s := newSampler(Sampling{Temperature: math.Exp(r.NormFloat64() * 2)})
		if n%2 == 0 {
			s.TopK = 1 + r.IntN(len(logits)+2)
		}
		if n%3 == 0 {
			s.TopP = r.Float64()
		}
		if n%5 == 0 {
			s.MinP = math.Exp(-20 * r.Float64())
		}
		for range 4 {
			u := r.Float64()
			if r.IntN(4) == 0 { // near the limit of a token: the weights of the likelier ones together
				among, sum := 0.0, 0.0
				least := logits[r.IntN(len(logits))]
				for _, v := range logits {
					w := math.Exp(float64(v-slices.Max(logits)) / s.Temperature)
					if sum += w; v >= least {
						among += w
					}
				}
				if v := among / sum * (1 + math.Exp(-30*r.Float64())*r.NormFloat64()); v >= 0 && v < 1 {
					u = v
				}
			}
			all++
			if id, ok := s.draw(logits, u); ok {
				sure++
				if want := s.drawSorted(logits, u); id != want {
					t.Fatalf("%d logits of ±%g on a grid of %g, %+v, u %v: token %d, want %d", len(logits), spread,
						grid, s.Sampling, u, id, want)
				}
			}
		}
	}
	if sure < all*3/4 {
		t.Errorf("%d of %d choices were made without sorting, want 3 of 4", sure, all)
	}
}

func TestLogitsThatAreNotFiniteEndTheirRequest(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, logits := range [][]float32{{1}, {2, 2, 2}, {-inf, 3}, {inf, 1}, {-inf, -inf}, {nan, 1}, {1, nan},
		{0, inf, nan}} {
		for _, s := range []Sampling{{}, {TopK: 1}, {TopP: 1e-300}, {TopP: 0.9}, {MinP: 0.1}, {MinP: 1}} {
			for _, s.Temperature = range []float64{1e-300, 1e-40, 0.5, 1e300, 0} {
				h := &Handle{Request: Request{MaxTokens: 2, Sampling: s}, sample: newSampler(s)}
				id, _ := h.choose(logits)
				if id < 0 || int(id) >= len(logits) {
					t.Errorf("%v with %+v: token %d", logits, s, id)
				}
				most := slices.Max(logits) // NaN if one is
				if want := most-most != 0; errors.Is(h.err, ErrNaN) != want {
					t.Errorf("%v with %+v: the error is %v, want ErrNaN: %v", logits, s, h.err, want)
				}
				if most == most {
					newSampler(s).drawSorted(logits, 0.5) // must not panic
				}
			}
		}
	}
}

func TestThePenaltyKeepsLogitsFinite(t *testing.T) {
	for _, penalty := range []float64{math.Inf(1), 101, 0.0099, 1e-40, 0, -1, math.NaN()} {
		if (Sampling{TopP: 1, RepetitionPenalty: penalty}).Check() == nil {
			t.Errorf("a repetition penalty of %g is accepted", penalty)
		}
	}
	for _, penalty := range []float64{MinPenalty, 1, MaxPenalty} {
		if err := (Sampling{TopP: 1, RepetitionPenalty: penalty}).Check(); err != nil {
			t.Error(err)
		}
	}
	s := Sampling{Temperature: 1, TopP: 0.9, MinP: 0.1, RepetitionPenalty: 1e-40} // what Check refuses
	if id := newSampler(s).next([]float32{1, 2, 3}, []int32{1}, nil); id != 1 {
		t.Errorf("token %d was taken, want the one with an infinite logit", id)
	}
}

// BenchmarkDraw is one token of SmolLM2's vocabulary; the greedy choice takes 0.04 ms.
func BenchmarkDraw(b *testing.B) {
	for name, spread := range map[string]float64{"narrow": 0.3, "wide": 4} {
		r := rand.New(rand.NewPCG(1, 2))
		logits := make([]float32, 49152)
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * spread)
		}
		for kind, c := range map[string]Sampling{"greedy": {}, "all": {Temperature: 0.9},
			"top-k": {Temperature: 0.9, TopK: 50}, "top-p": {Temperature: 0.9, TopP: 0.9}} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				s := newSampler(c)
				for b.Loop() {
					s.next(logits, nil, nil)
				}
			})
		}
	}
}

func TestSamplingFollowsTheProbabilities(t *testing.T) {
	logits := []float32{0, 1, 2}
	s, n := newSampler(Sampling{Temperature: 0.5, TopP: 1}), 20000
	count := make([]float64, 3)
	for range n {
		count[s.next(logits, nil, nil)]++
	}
	z := 1 + math.Exp(2) + math.Exp(4)
	for i, want := range []float64{1 / z, math.Exp(2) / z, math.Exp(4) / z} {
		if got := count[i] / float64(n); !(math.Abs(got-want) <= 0.015) {
			t.Errorf("token %d was taken with frequency %g, want %g", i, got, want)
		}
	}
}

func TestSamplingOfATextDoesNotDependOnOtherTexts(t *testing.T) {
	draw := func(text int) (ids []int32) {
		s := newSampler(Sampling{Temperature: 9, Seed: 4, Stream: text})
		for range 20 {
			ids = append(ids, s.next(make([]float32, 1000), nil, nil))
		}
		return ids
	}
	if !slices.Equal(draw(1), draw(1)) || slices.Equal(draw(0), draw(1)) {
		t.Error("the samples do not depend on seed and text alone")
	}
}
