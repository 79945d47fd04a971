package eval

import (
	"context"
	"slices"

	"ptune/internal/infer"
)

// textsAtOnce is the most texts that Answers continues at a time: enough to be bound by arithmetic,
// and few enough that a cache page for each, with room for a whole target, is little memory.
const textsAtOnce = 64

// Answer is what the model generates for a row, without the end token.
type Answer struct {
	IDs   []int32
	Exact bool // it is the row's target, token for token with the end token
}

// Answers returns what the model generates for each row if it always takes the likeliest token, at most as
// many tokens as the target has. Inputs of at most maxTokens tokens, with their targets, are computed at a
// time. A nil p is the base model alone.
func Answers(ctx context.Context, e *infer.Engine, p *infer.Prompt, rows []Row,
	eos int32, maxTokens int) ([]Answer, error) {
	var all []Answer
	for left := rows; len(left) > 0; {
		var requests []infer.Request
		tokens := 0
		for _, r := range left {
			tokens += len(r.Input) + len(r.Target)
			if n := len(requests); n == textsAtOnce || n > 0 && tokens > maxTokens {
				break
			}
			requests = append(requests, infer.Request{
				Prompt: p, IDs: r.Input, MaxTokens: len(r.Target), EOS: []int32{eos},
			})
		}
		results, err := e.Generate(ctx, requests)
		if err != nil {
			return nil, err
		}
		for i, a := range results {
			target := left[i].Target
			exact := a.FinishReason == infer.FinishEOS && slices.Equal(a.IDs, target[:len(target)-1])
			all = append(all, Answer{a.IDs, exact})
		}
		left = left[len(results):]
	}
	return all, nil
}

// ExactMatch returns the share of rows whose target is generated.
func ExactMatch(answers []Answer) float64 {
	exact := 0
	for _, a := range answers {
		if a.Exact {
			exact++
		}
	}
	return float64(exact) / float64(len(answers))
}
