package infer

import (
	"math"
	"slices"

	"ptune/internal/batch"
)

// Scorer computes −log p of a forest's targets after soft prompts, whose values follow each other.
type Scorer interface {
	NLL(prompts []float32, f *batch.Forest) ([]float32, error)
}

// Question is an input and the endings whose likelihood is asked for.
type Question struct {
	Prompt int // the number of its soft prompt; ignored without any
	Input  []int32
	Ends   [][]int32
}

// Tokens is the number of tokens of the input and all endings.
func (q *Question) Tokens() int {
	n := len(q.Input)
	for _, e := range q.Ends {
		n += len(e)
	}
	return n
}

// Likelihood is the sum of −log p over the tokens of an ending. Without a soft prompt and an input
// nothing predicts the first token, so it does not count.
type Likelihood struct {
	NLL    float64
	Tokens int
}

// Score returns the likelihood of each ending of each question after soft prompts of the given
// numbers of rows, or none. Inputs that begin alike and the soft prompts are computed once.
func Score(s Scorer, prompts []float32, rows []int, questions []Question) ([][]Likelihood, error) {
	var examples []batch.Example
	for _, q := range questions {
		for _, end := range q.Ends {
			ids := slices.Concat(q.Input, end)
			examples = append(examples, batch.Example{Prompt: q.Prompt, IDs: ids, From: len(q.Input)})
		}
	}
	f := batch.Pack(rows, examples)
	nll, err := s.NLL(prompts, f)
	if err != nil {
		return nil, err
	}
	all := make([]Likelihood, len(examples))
	for i, t := range f.Targets {
		all[t.Of].NLL += float64(nll[i])
		all[t.Of].Tokens++
	}
	scores := make([][]Likelihood, len(questions))
	for i, q := range questions {
		scores[i], all = all[:len(q.Ends)], all[len(q.Ends):]
	}
	return scores, nil
}

// Forcer computes by how much the logit of each of a forest's targets exceeds that of every other token.
type Forcer interface {
	Margins(prompts []float32, f *batch.Forest) ([]float32, error)
}

// Margins returns the least margin of each question's only ending, over its tokens. Where it is
// positive, the ending is what greedy decoding writes after the input: its first token is the
// likeliest, and so is each later one after those before it.
func Margins(m Forcer, prompts []float32, rows []int, questions []Question) ([]float64, error) {
	var examples []batch.Example
	least := make([]float64, len(questions))
	for i, q := range questions {
		ids := slices.Concat(q.Input, q.Ends[0])
		examples = append(examples, batch.Example{Prompt: q.Prompt, IDs: ids, From: len(q.Input)})
		least[i] = math.Inf(1)
	}
	f := batch.Pack(rows, examples)
	margins, err := m.Margins(prompts, f)
	if err != nil {
		return nil, err
	}
	for i, t := range f.Targets {
		least[t.Of] = min(least[t.Of], float64(margins[i]))
	}
	return least, nil
}

// LabelEnds returns the tokens to score for each label: the label's own, followed by the end token
// if one label begins like another, because then only the end token tells them apart.
func LabelEnds(labels [][]int32, eos int32) [][]int32 {
	for i, a := range labels {
		for j, b := range labels {
			if i != j && len(a) <= len(b) && slices.Equal(a, b[:len(a)]) {
				ends := make([][]int32, len(labels))
				for k, l := range labels {
					ends[k] = append(slices.Clone(l), eos)
				}
				return ends
			}
		}
	}
	return labels
}

// score answers waiting requests with labels: the first ones that have ScoreTokens tokens together,
// but at least one.
func (e *Engine) score() {
	var asked []*Handle
	tokens := 0
	for _, h := range e.waiting {
		if h.Labels == nil {
			continue
		}
		tokens += (&Question{Input: h.IDs, Ends: h.Labels}).Tokens()
		if asked != nil && (tokens > e.ScoreTokens || (h.Prompt == nil) != (asked[0].Prompt == nil)) {
			break
		}
		asked = append(asked, h)
	}
	if asked == nil {
		return
	}
	err := e.scoreTogether(asked)
	for _, h := range asked {
		if err != nil && len(asked) > 1 { // find the request that the model cannot score
			h.err = e.scoreTogether([]*Handle{h})
		} else {
			h.err = err
		}
		e.leave(h)
	}
}

// scoreTogether sets the results of requests with labels.
func (e *Engine) scoreTogether(asked []*Handle) error {
	var questions []Question
	var prompts []*Prompt
	var values []float32
	var rows []int
	for _, h := range asked {
		q := Question{Input: h.IDs, Ends: h.Labels}
		if h.Prompt != nil {
			if q.Prompt = slices.Index(prompts, h.Prompt); q.Prompt < 0 {
				q.Prompt = len(prompts)
				prompts, values = append(prompts, h.Prompt), append(values, h.Prompt.values...)
				rows = append(rows, h.Prompt.rows)
			}
		}
		questions = append(questions, q)
	}
	scores, err := Score(e.Scorer, values, rows, questions)
	if err != nil {
		return err
	}
	for i, h := range asked {
		h.result = &Result{}
		for _, s := range scores[i] {
			h.result.Scores = append(h.result.Scores, s.NLL)
		}
	}
	return nil
}
