package serve

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"

	"ptune/internal/data"
	"ptune/internal/infer"
)

// defaultCompletion is max_tokens of a completion that does not give it, as OpenAI has it.
const defaultCompletion = 16

// completionRequest is the body of /v1/completions.
type completionRequest struct {
	sampling
	Prompt json.RawMessage   `json:"prompt"` // a text, token ids, or an array of either
	Fields map[string]string `json:"fields"` // of the prompt's input template, instead of Prompt
	Echo   bool              `json:"echo"`
}

var completionNeutral = merged(neutralFields, map[string]string{"best_of": "1", "suffix": `""`, "logprobs": "false"})

func merged(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// completion is the answer of /v1/completions.
type completion struct {
	ID      string             `json:"id"`
	Object  string             `json:"object"`
	Created int64              `json:"created"`
	Model   string             `json:"model"`
	Choices []completionChoice `json:"choices"`
	Usage   *usage             `json:"usage,omitempty"`
}

type completionChoice struct {
	Index        int     `json:"index"`
	Text         string  `json:"text"`
	Logprobs     *string `json:"logprobs"`
	FinishReason *string `json:"finish_reason"`
}

// textInput is an input of a completion: its text as the client gave it, and its tokens.
type textInput struct {
	text string
	ids  []int32
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) error {
	var body completionRequest
	if err := s.readBody(w, r, &body, completionNeutral); err != nil {
		return err
	}
	m, err := s.find(body.Model)
	if err != nil {
		return err
	}
	if body.Stream {
		return invalid("stream", "stream is not supported")
	}
	common, err := s.request(&body.sampling, defaultCompletion)
	if err != nil {
		return err
	}
	inputs, err := s.inputs(m, &body)
	if err != nil {
		return err
	}
	n := orElse(body.N, 1)
	if n*len(inputs) > maxChoices {
		return invalid("n", "%d prompts with n %d are %d choices, want at most %d",
			len(inputs), n, n*len(inputs), maxChoices)
	}
	var requests []infer.Request
	var used usage
	for _, x := range inputs {
		if err := s.checkLength(m, len(x.ids)+1); err != nil {
			return err
		}
		used.Prompt += len(x.ids)
		for range n {
			one := common
			one.IDs, one.Stream = x.ids, len(requests)
			requests = append(requests, one)
		}
	}
	note(w, m.id, used.Prompt, 0)
	results, err := s.generate(r.Context(), m, requests)
	if err != nil {
		return err
	}
	answer := completion{ID: "cmpl-" + rand.Text(), Object: "text_completion", Created: time.Now().Unix(),
		Model: m.id, Usage: &used}
	for i, result := range results {
		used.Completion += generated(result)
		reason := finishReason(result)
		choice := completionChoice{Index: i, Text: result.Text, FinishReason: &reason}
		if body.Echo {
			choice.Text = inputs[i/n].text + choice.Text
		}
		answer.Choices = append(answer.Choices, choice)
	}
	used.Total = used.Prompt + used.Completion
	note(w, m.id, used.Prompt, used.Completion)
	return writeJSON(w, http.StatusOK, answer)
}

// generate returns the results of requests that follow a model's soft prompt.
func (s *Server) generate(ctx context.Context, m *served, requests []infer.Request) ([]*infer.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tickets, err := s.loop.begin(ctx, m.engine, requests)
	if err != nil {
		return nil, err
	}
	results := make([]*infer.Result, len(tickets))
	for i, t := range tickets {
		if results[i], err = s.loop.wait(ctx, t); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// inputs returns the inputs of a completion. A text fills the prompt's input template, as that of ptune
// generate does; token ids are the whole input.
func (s *Server) inputs(m *served, body *completionRequest) ([]textInput, error) {
	if body.Fields != nil {
		if body.Prompt != nil {
			return nil, invalid("fields", "give prompt or fields, not both")
		}
		fields := data.Fields{}
		for name, text := range body.Fields {
			fields[name] = data.Field{Text: text}
		}
		ids, err := m.task.Fields(fields)
		if err != nil {
			return nil, invalid("fields", "fields: %v", err)
		}
		return []textInput{{s.base.Tokenizer.Decode(ids), ids}}, nil
	}
	if body.Prompt == nil {
		return nil, invalid("prompt", "prompt is missing")
	}
	var inputs []textInput
	var texts list[string]
	var ids []int32
	var several [][]int32
	switch {
	case json.Unmarshal(body.Prompt, &texts) == nil && (len(texts) > 0 || string(body.Prompt) != "[]"):
		for _, text := range texts {
			ids, err := m.task.Text(text)
			if err != nil {
				return nil, invalid("prompt", "prompt: %v", err)
			}
			inputs = append(inputs, textInput{text, ids})
		}
		return inputs, nil
	case json.Unmarshal(body.Prompt, &ids) == nil:
		several = [][]int32{ids}
	case json.Unmarshal(body.Prompt, &several) != nil:
		return nil, invalid("prompt", "prompt is neither a text, token ids, nor an array of texts or of token ids")
	}
	for _, ids := range several {
		if len(ids) == 0 {
			return nil, invalid("prompt", "prompt has no tokens")
		}
		for _, id := range ids {
			if id < 0 || int(id) >= s.base.Vocab {
				return nil, invalid("prompt", "prompt has the token id %d, want 0 to %d", id, s.base.Vocab-1)
			}
		}
		inputs = append(inputs, textInput{s.base.Tokenizer.Decode(ids), ids})
	}
	return inputs, nil
}
