package eval

import (
	"context"
	"slices"

	"ptune/internal/infer"
)

// textsAtOnce is the most texts that ExactMatch continues at a time: enough to be bound by arithmetic,
// and few enough that a cache page for each, with room for a whole target, is little memory.
const textsAtOnce = 64

// ExactMatch returns the share of rows whose target is what the model generates, token for token with
// the end token, if it always takes the likeliest. Inputs of at most maxTokens tokens, with their
// targets, are computed at a time. A nil p is the base model alone.
func ExactMatch(ctx context.Context, e *infer.Engine, p *infer.Prompt, rows []Row,
	eos int32, maxTokens int) (float64, error) {
	equal := 0
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
		answers, err := e.Generate(ctx, requests)
		if err != nil {
			return 0, err
		}
		for i, a := range answers {
			target := left[i].Target
			if a.FinishReason == infer.FinishEOS && slices.Equal(a.IDs, target[:len(target)-1]) {
				equal++
			}
		}
		left = left[len(answers):]
	}
	return float64(equal) / float64(len(rows)), nil
}
