package serve

import (
	"context"
	"errors"
	"math"

	"ptune/internal/data"
	"ptune/internal/infer"
)

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

// checkQuestion refuses a question that has more tokens with its longest ending than the server takes.
func (s *Server) checkQuestion(m *served, q *infer.Question) error {
	longest := 0
	for _, end := range q.Ends {
		longest = max(longest, len(end))
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
	e.Code = "context_length_exceeded"
	return e
}
