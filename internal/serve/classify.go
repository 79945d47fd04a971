package serve

import (
	"crypto/rand"
	"net/http"
	"time"
)

// classifyRequest is the body of /classify, in vLLM's form.
type classifyRequest struct {
	Model string       `json:"model"`
	Input list[string] `json:"input"`
}

// classification is the answer of /classify.
type classification struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Data    []classified `json:"data"`
	Usage   usage        `json:"usage"`
}

type classified struct {
	Index   int       `json:"index"`
	Label   string    `json:"label"`
	Probs   []float64 `json:"probs"` // in the order of the prompt's labels
	Classes int       `json:"num_classes"`
}

// classify answers with the labels of a prompt.
func (s *Server) classify(w http.ResponseWriter, r *http.Request) error {
	var body classifyRequest
	if err := s.readBody(w, r, &body, clientFields); err != nil {
		return err
	}
	m, err := s.find(body.Model)
	if err != nil {
		return err
	}
	if len(m.choices) == 0 {
		return invalid("model", "%q has no labels: /v1/decisions takes questions with options", m.id)
	}
	if err := s.checkCount("input", len(body.Input)); err != nil {
		return err
	}
	var questions []question
	for i, text := range body.Input {
		questions = append(questions, question{at: index("input", i), kind: kindChoice, input: textState(text)})
	}
	all, tokens, err := s.decide(r.Context(), w, m, questions)
	if err != nil {
		return err
	}
	answer := classification{ID: "classify-" + rand.Text(), Object: "list", Created: time.Now().Unix(),
		Model: m.id, Usage: usage{Prompt: tokens, Total: tokens}}
	for i, d := range all {
		answer.Data = append(answer.Data, classified{
			Index: i, Label: d.options[d.best()].text, Probs: d.probabilities, Classes: len(d.probabilities),
		})
	}
	return writeJSON(w, http.StatusOK, answer)
}
