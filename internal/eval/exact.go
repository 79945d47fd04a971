package eval

import (
	"context"
	"slices"

	"ptune/internal/infer"
)

// textsAtOnce is the most texts that Answers continues at a time: enough to be bound by arithmetic,
// and few enough that a cache page for each, with room for a whole target, is little memory.
const textsAtOnce = 64

// Exact finds rows whose target is what the model generates.
type Exact struct {
	Engine    *infer.Engine
	Forcer    infer.Forcer
	Values    []float32     // of the soft prompt; none: the base model alone
	Prompt    *infer.Prompt // the same in the engine
	Rows      []int         // of the soft prompt
	EOS       int32
	MaxTokens int // tokens of inputs and targets computed at a time

	Tell func(done, of int) // called with the number of rows decided so far; nil: not called
}

// tell reports the number of rows decided.
func (e *Exact) tell(done, of int) {
	if e.Tell != nil {
		e.Tell(done, of)
	}
}

// Answer is what the model generates for a row, without the end token.
type Answer struct {
	IDs   []int32
	Exact bool // it is the row's target, token for token with the end token
}

// Answers returns what the model generates for each row if it always takes the likeliest token, at most as
// many tokens as the target has.
func (e *Exact) Answers(ctx context.Context, rows []Row) ([]Answer, error) {
	return e.answers(ctx, rows, 0)
}

// answers is Answers of rows after others that were decided before.
func (e *Exact) answers(ctx context.Context, rows []Row, before int) ([]Answer, error) {
	var all []Answer
	for left := rows; len(left) > 0; {
		var requests []infer.Request
		tokens := 0
		for _, r := range left {
			tokens += len(r.Input) + len(r.Target)
			if n := len(requests); n == textsAtOnce || n > 0 && tokens > e.MaxTokens {
				break
			}
			requests = append(requests, infer.Request{
				Prompt: e.Prompt, IDs: r.Input, MaxTokens: len(r.Target), EOS: []int32{e.EOS},
			})
		}
		results, err := e.Engine.Generate(ctx, requests)
		if err != nil {
			return nil, err
		}
		for i, a := range results {
			target := left[i].Target
			exact := a.FinishReason == infer.FinishEOS && slices.Equal(a.IDs, target[:len(target)-1])
			all = append(all, Answer{a.IDs, exact})
		}
		left = left[len(results):]
		e.tell(before+len(all), before+len(rows))
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

// sureMargin is a difference of logits far above what another order of adding up changes: about 1e-4 in
// f32, up to some hundredths in BF16. Text is generated only for rows with a smaller one.
const sureMargin = 0.25

// Match returns the share of rows whose target is what the model generates, token for token with the end
// token, if it always takes the likeliest. Text need not be generated for that: it is the target
// exactly if each of the target's tokens is the likeliest after the input and the tokens before it,
// which one pass over input and target shows. The pass adds up in another order than generation does, so
// rows where it is close are generated.
func (e *Exact) Match(ctx context.Context, rows []Row) (share float64, err error) {
	equal := 0
	var unsure []Row
	for left := rows; len(left) > 0; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		var questions []infer.Question
		tokens := 0
		for _, r := range left {
			if tokens += len(r.Input) + len(r.Target); questions != nil && tokens > e.MaxTokens {
				break
			}
			questions = append(questions, infer.Question{Input: r.Input, Ends: [][]int32{r.Target}})
		}
		margins, err := infer.Margins(e.Forcer, e.Values, e.Rows, questions)
		if err != nil {
			return 0, err
		}
		for i, m := range margins {
			// A text ends at its first end token.
			early := slices.Index(left[i].Target, e.EOS) < len(left[i].Target)-1
			switch {
			case early || m < -sureMargin:
			case m > sureMargin && (e.Prompt != nil || len(left[i].Input) > 0):
				equal++
			default:
				unsure = append(unsure, left[i])
			}
		}
		left = left[len(questions):]
		e.tell(len(rows)-len(left)-len(unsure), len(rows))
	}
	answers, err := e.answers(ctx, unsure, len(rows)-len(unsure))
	for _, a := range answers {
		if a.Exact {
			equal++
		}
	}
	return float64(equal) / float64(len(rows)), err
}
