package serve

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"ptune/internal/data"
	"ptune/internal/infer"
)

// defaultCompletion is max_tokens of a completion that does not give it, as OpenAI has it.
const defaultCompletion = 16

// completionRequest is the body of /v1/completions.
type completionRequest struct {
	sampling
	Prompt   json.RawMessage   `json:"prompt"` // a text, token ids, or an array of either
	Fields   map[string]string `json:"fields"` // of the prompt's input template, instead of Prompt
	Echo     bool              `json:"echo"`
	Logprobs *int              `json:"logprobs"` // the number of likeliest tokens told beside each token
}

var completionNeutral = merged(map[string]string{"best_of": "1", "suffix": `""`})

// completion is the answer of /v1/completions, or a part of it.
type completion struct {
	ID      string             `json:"id"`
	Object  string             `json:"object"`
	Created int64              `json:"created"`
	Model   string             `json:"model"`
	Choices []completionChoice `json:"choices"`
	Usage   *usage             `json:"usage,omitempty"`
}

type completionChoice struct {
	Index        int                 `json:"index"`
	Text         string              `json:"text"`
	Logprobs     *completionLogprobs `json:"logprobs"`
	FinishReason *string             `json:"finish_reason"`
}

// completionLogprobs has an element for each token.
type completionLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []float64            `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"` // null if none is asked for
	TextOffset    []int                `json:"text_offset"`  // in characters of the choice's text
}

// maxLogprobs is the most alternatives that are told for a token.
const maxLogprobs = 20

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
	common, err := s.request(&body.sampling, body.MaxTokens, defaultCompletion)
	if err != nil {
		return err
	}
	if body.Logprobs != nil {
		if *body.Logprobs < 0 || *body.Logprobs > maxLogprobs {
			return invalid("logprobs", "logprobs is %d, want 0 to %d", *body.Logprobs, maxLogprobs)
		}
		if body.Echo {
			return invalid("logprobs", "logprobs together with echo is not supported")
		}
		common.Logprobs = 1 + *body.Logprobs
	}
	var inputs []textInput
	err = s.encode(r.Context(), 1, func() (err error) {
		inputs, err = s.inputs(r.Context(), m, &body)
		return err
	})
	if err != nil {
		return err
	}
	var ids [][]int32
	for _, x := range inputs {
		ids = append(ids, x.ids)
	}
	asked, err := s.choices(m, &body.sampling, common, ids)
	if err != nil {
		return err
	}
	answer := completion{ID: "cmpl-" + rand.Text(), Object: "text_completion", Created: time.Now().Unix(), Model: m.id}
	tellers := make([]teller, len(asked.requests))
	choice := func(i int, p piece, reason *string) completionChoice {
		t := &tellers[i]
		c := completionChoice{Index: i, Text: p.text, FinishReason: reason}
		if body.Logprobs != nil {
			c.Logprobs = s.completionLogprobs(t, asked.requests[i].IDs, p.logs)
		}
		return c
	}
	if body.Stream {
		return s.stream(r.Context(), w, asked, body.withUsage, func(i int, p piece, reason *string) any {
			part := answer
			if tellers[i].begin() && body.Echo {
				p.text = inputs[i/orElse(body.N, 1)].text + p.text
			}
			part.Choices = []completionChoice{choice(i, p, reason)}
			return part
		}, func(used *usage) any {
			part := answer
			part.Choices, part.Usage = []completionChoice{}, used
			return part
		})
	}
	results, used, err := s.generate(r.Context(), w, asked)
	if err != nil {
		return err
	}
	for i, result := range results {
		reason := finishReason(result)
		if body.Echo {
			result.Text = inputs[i/orElse(body.N, 1)].text + result.Text
		}
		answer.Choices = append(answer.Choices, choice(i, piece{result.Text, result.Logprobs}, &reason))
	}
	answer.Usage = used
	return writeJSON(w, http.StatusOK, answer)
}

// completionLogprobs returns the log probabilities of tokens in the form of completions.
func (s *Server) completionLogprobs(t *teller, input []int32, logs []infer.Logprob) *completionLogprobs {
	l := &completionLogprobs{Tokens: []string{}, TokenLogprobs: []float64{}, TextOffset: []int{}}
	for _, x := range logs {
		text, tops := t.token(s.base.Tokenizer.Decode, input, x)
		l.TextOffset = append(l.TextOffset, t.offset)
		t.offset += len([]rune(text))
		l.Tokens, l.TokenLogprobs = append(l.Tokens, text), append(l.TokenLogprobs, x.LogP)
		if len(tops) > 0 {
			top := map[string]float64{}
			for i := len(tops) - 1; i >= 0; i-- { // of tokens with the same text the likeliest
				top[tops[i]] = x.Top[i].LogP
			}
			l.TopLogprobs = append(l.TopLogprobs, top)
		}
	}
	return l
}

// teller spells the tokens of one choice.
type teller struct {
	began  bool
	ids    []int32 // of the choice so far
	offset int     // characters of their texts
}

// begin reports whether this is its first call.
func (t *teller) begin() bool {
	first := !t.began
	t.began = true
	return first
}

// token returns the text of the next token, and those of its alternatives in the same place.
func (t *teller) token(decode func([]int32) string, input []int32, x infer.Logprob) (text string, tops []string) {
	before := slices.Concat(input, t.ids)
	for _, alternative := range x.Top {
		tops = append(tops, infer.Continuation(decode, before, []int32{alternative.ID}))
	}
	text = infer.Continuation(decode, before, []int32{x.ID})
	t.ids = append(t.ids, x.ID)
	return text, tops
}

// inputs returns the inputs of a completion. A text fills the prompt's input template, as that of ptune
// generate does; token ids are the whole input.
func (s *Server) inputs(ctx context.Context, m *served, body *completionRequest) ([]textInput, error) {
	if body.Fields != nil {
		if given(body.Prompt) {
			return nil, invalid("fields", "give prompt or fields, not both")
		}
		ids, err := m.task.Fields(data.Texts(body.Fields))
		if err != nil {
			return nil, invalid("fields", "fields: %v", err)
		}
		return []textInput{{s.base.Tokenizer.Decode(ids), ids}}, nil
	}
	if !given(body.Prompt) {
		return nil, invalid("prompt", "prompt is missing")
	}
	var inputs []textInput
	var texts list[string]
	var ids []int32
	var several [][]int32
	switch {
	case json.Unmarshal(body.Prompt, &texts) == nil && len(texts) > 0:
		if err := s.checkChoices(&body.sampling, len(texts)); err != nil {
			return nil, err
		}
		for _, text := range texts {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			ids, err := m.task.Text(text)
			if err != nil {
				return nil, invalid("prompt", "prompt: %v", err)
			}
			if err := s.checkLength(m, len(ids)); err != nil {
				return nil, err
			}
			inputs = append(inputs, textInput{text, ids})
		}
		return inputs, nil
	case json.Unmarshal(body.Prompt, &ids) == nil:
		several = [][]int32{ids}
	case json.Unmarshal(body.Prompt, &several) != nil:
		return nil, invalid("prompt", "prompt is neither a text, token ids, nor an array of texts or of token ids")
	}
	if err := s.checkChoices(&body.sampling, len(several)); err != nil {
		return nil, err
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
