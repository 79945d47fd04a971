package serve

import (
	"context"
	"errors"
	"math"

	"ptune/internal/data"
	"ptune/internal/infer"
)

// maxScored is the most tokens of all options of a question together. They are computed in one pass, for
// which other requests wait. A prompt's own labels may have more.
const maxScored = 8192

// labelTokens returns the most tokens that are scored for a model's own labels.
func (m *served) labelTokens() (n int) {
	for _, c := range m.choices {
		n += len(c.IDs) + 1 // an end token
	}
	return n
}

// score returns −log p of each ending of each question after a model's soft prompt. The questions' number
// of a prompt is ignored.
func (s *Server) score(ctx context.Context, m *served, questions []infer.Question) ([][]float64, error) {
	requests := make([]infer.Request, len(questions))
	for i, q := range questions {
		requests[i] = infer.Request{IDs: q.Input, Labels: q.Ends}
	}
	w, err := s.loop.begin(ctx, m.engine, requests, false)
	if err != nil {
		return nil, err
	}
	scores := make([][]float64, len(w.tickets))
	for i, t := range w.tickets {
		result, err := s.loop.wait(ctx, t)
		if err != nil {
			return nil, err
		}
		for _, nll := range result.Scores {
			if math.IsNaN(nll) {
				return nil, errors.New("the likelihoods are NaN: the prompt or the base is damaged")
			}
		}
		if scores[i] = result.Scores; m.meta.LabelScores == data.ScoreMean {
			scores[i] = infer.MeanScores(result.Scores, questions[i].Ends)
		}
	}
	return scores, nil
}

// checkQuestion refuses a question that has more tokens with its longest ending, or in all endings, than the
// server takes.
func (s *Server) checkQuestion(m *served, q *infer.Question) error {
	longest := 0
	for _, end := range q.Ends {
		longest = max(longest, len(end))
	}
	most := max(maxScored, m.labelTokens())
	if n := q.Tokens() - len(q.Input); n > most {
		return invalid("", "the question's options have %d tokens together, want at most %d: "+
			"ask with fewer or shorter options", n, most)
	}
	return s.checkLength(m, len(q.Input)+longest)
}

// checkLength refuses a text of more tokens than the server takes.
func (s *Server) checkLength(m *served, tokens int) error {
	if m.rows+tokens <= s.length {
		return nil
	}
	e := invalid("", "the text has %d tokens and its soft prompt %d, but the model takes %d together",
		tokens, m.rows, s.length)
	e.Code = codeLength
	return e
}
