package infer

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling is how the next token is chosen. The zero value is greedy.
type Sampling struct {
	Temperature float64 // 0: the likeliest token
	TopK        int     // only among the k likeliest; 0: all
	TopP        float64 // only among the likeliest that reach this probability together; 0 or 1: all
	MinP        float64 // only among those at least this times as likely as the likeliest; 0: all
	// RepetitionPenalty makes tokens of the input and of the text so far less likely: positive logits
	// are divided by it, others multiplied (Keskar et al. 2019). 0 or 1: none.
	RepetitionPenalty float64
	Seed              uint64
	Stream            int // requests with the same seed and another Stream draw other numbers
}

// Limits of Sampling.RepetitionPenalty. Beyond them, finite logits could become infinite ones.
const (
	MinPenalty = 0.01
	MaxPenalty = 100.0
)

// Check returns an error for a setting outside its range, with the name that the command line gives it.
func (s Sampling) Check() error {
	switch {
	case !(s.Temperature >= 0 && s.Temperature <= math.MaxFloat64):
		return fmt.Errorf("temperature is %g, want a number of at least 0", s.Temperature)
	case !(s.TopP > 0 && s.TopP <= 1):
		return fmt.Errorf("top-p is %g, want above 0 and at most 1", s.TopP)
	case s.TopK < 0:
		return fmt.Errorf("top-k is %d, want at least 0", s.TopK)
	case !(s.MinP >= 0 && s.MinP <= 1):
		return fmt.Errorf("min-p is %g, want 0 to 1", s.MinP)
	case !(s.RepetitionPenalty >= MinPenalty && s.RepetitionPenalty <= MaxPenalty):
		return fmt.Errorf("repetition-penalty is %g, want %g to %g", s.RepetitionPenalty, MinPenalty, MaxPenalty)
	}
	return nil
}

type sampler struct {
	Sampling
	r         *rand.Rand
	order     *order    // nil: before the first draw
	penalised []float32 // logits with the penalty
}

// purpose separates these random numbers from all others made with the same seed.
const purpose = 0x73616d706c65 // "sample"

// newSampler returns the sampler of one request. What it draws does not depend on other requests.
func newSampler(s Sampling) *sampler {
	seed := s.Seed + uint64(s.Stream)>>16*0x9e3779b97f4a7c15 // an odd number far from small seeds
	return &sampler{Sampling: s, r: rand.New(rand.NewPCG(seed, purpose+uint64(s.Stream)<<48))}
}

// next chooses the token after an input and a text: the repetition penalty first, then temperature,
// top-k, top-p and min-p, in transformers' order. If a logit is NaN, it returns the first such token. If
// the greatest is infinite, it returns that token: no probabilities can be computed.
func (s *sampler) next(logits []float32, input, text []int32) int32 {
	logits = s.penalise(logits, input, text)
	best, most := 0, logits[0]
	for i, v := range logits {
		if v > most {
			best, most = i, v
		} else if v != v {
			return int32(i)
		}
	}
	if s.Temperature == 0 || math.IsInf(float64(most), 0) {
		return int32(best)
	}
	u := s.r.Float64()
	if id, sure := s.draw(logits, u); sure {
		return id
	}
	return s.drawSorted(logits, u)
}

// penalise returns the logits with the repetition penalty.
func (s *sampler) penalise(logits []float32, texts ...[]int32) []float32 {
	penalty := float32(s.RepetitionPenalty)
	if penalty == 0 || penalty == 1 {
		return logits
	}
	s.penalised = append(s.penalised[:0], logits...)
	for _, ids := range texts {
		for _, id := range ids {
			if v := logits[id]; v < 0 {
				s.penalised[id] = v * penalty
			} else {
				s.penalised[id] = v / penalty
			}
		}
	}
	return s.penalised
}

// drawSorted chooses the token at the share u of the probability of all tokens that may be taken, in
// order of falling logits. Sorting a vocabulary of 49,152 tokens takes 10 ms.
func (s *sampler) drawSorted(logits []float32, u float64) int32 {
	order := make([]int32, len(logits))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
	if s.TopK > 0 && s.TopK < len(order) {
		order = order[:s.TopK]
	}
	p, sum := make([]float64, len(order)), 0.0
	for i, id := range order {
		p[i] = math.Exp(float64(logits[id]-logits[order[0]]) / s.Temperature)
		sum += p[i]
	}
	if s.TopP > 0 && s.TopP < 1 {
		had, n := p[0], 1
		for n < len(p) && had < s.TopP*sum { // the token that reaches top-p is kept
			had += p[n]
			n++
		}
		order, p, sum = order[:n], p[:n], had
	}
	if s.MinP > 0 {
		had, n := p[0], 1
		for n < len(p) && p[n] >= s.MinP {
			had += p[n]
			n++
		}
		order, p, sum = order[:n], p[:n], had
	}
	u *= sum
	for i, w := range p {
		if u -= w; u < 0 {
			return order[i]
		}
	}
	return order[len(order)-1]
}
