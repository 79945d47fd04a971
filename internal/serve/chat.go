package serve

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"ptune/internal/chat"
	"ptune/internal/infer"
)

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	sampling
	MaxCompletionTokens *int              `json:"max_completion_tokens"`
	Messages            []json.RawMessage `json:"messages"`
	Logprobs            bool              `json:"logprobs"`
	TopLogprobs         *int              `json:"top_logprobs"`
}

var chatNeutral = merged(map[string]string{
	"response_format": `{"type":"text"}`, "tools": "[]", "tool_choice": `"none"`, "parallel_tool_calls": "*",
	"functions": "[]", "function_call": `"none"`, "modalities": `["text"]`, "store": "false", "metadata": "*",
	"service_tier": `"auto"`,
})

// chatAnswer is the answer of /v1/chat/completions, or a part of it.
type chatAnswer struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	Usage   *usage       `json:"usage,omitempty"`
}

type chatChoice struct {
	Index        int           `json:"index"`
	Message      *chatMessage  `json:"message,omitempty"`
	Delta        *chatMessage  `json:"delta,omitempty"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatMessage struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
}

type chatLogprob struct {
	tokenLogprob
	Top []tokenLogprob `json:"top_logprobs"`
}

type tokenLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"` // null if the token is a part of a character
}

func newTokenLogprob(text string, logp float64) tokenLogprob {
	t := tokenLogprob{Token: text, Logprob: logp}
	if !strings.Contains(text, "\ufffd") {
		t.Bytes = []int{}
		for _, b := range []byte(text) {
			t.Bytes = append(t.Bytes, int(b))
		}
	}
	return t
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) error {
	var body chatRequest
	if err := s.readBody(w, r, &body, chatNeutral); err != nil {
		return err
	}
	m, err := s.find(body.Model)
	if err != nil {
		return err
	}
	most := body.MaxTokens
	if body.MaxCompletionTokens != nil {
		if most != nil && *most != *body.MaxCompletionTokens {
			return invalid("max_completion_tokens", "give max_tokens or max_completion_tokens, not both")
		}
		most = body.MaxCompletionTokens
	}
	common, err := s.request(&body.sampling, most, s.MaxTokens)
	if err != nil {
		return err
	}
	if top := orElse(body.TopLogprobs, 0); top < 0 || top > maxLogprobs || top > 0 && !body.Logprobs {
		return invalid("top_logprobs", "top_logprobs is %d, want 0 to %d, and logprobs", top, maxLogprobs)
	}
	if body.Logprobs {
		common.Logprobs = 1 + orElse(body.TopLogprobs, 0)
	}
	messages, err := readMessages(body.Messages)
	if err != nil {
		return err
	}
	template, _ := s.base.Chat() // nil if the base has none
	var ids []int32
	err = s.encode(r.Context(), 1, func() error {
		if ids, err = m.task.Messages(messages, template); err != nil {
			return invalid("messages", "messages: %v", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	asked, err := s.choices(m, &body.sampling, common, [][]int32{ids})
	if err != nil {
		return err
	}
	answer := chatAnswer{ID: "chatcmpl-" + rand.Text(), Object: "chat.completion", Created: time.Now().Unix(), Model: m.id}
	tellers := make([]teller, len(asked.requests))
	logprobs := func(i int, logs []infer.Logprob) *chatLogprobs {
		if !body.Logprobs {
			return nil
		}
		l := &chatLogprobs{Content: []chatLogprob{}}
		for _, x := range logs {
			text, tops := tellers[i].token(s.base.Tokenizer.Decode, ids, x)
			token := chatLogprob{newTokenLogprob(text, x.LogP), []tokenLogprob{}}
			for k, top := range tops {
				token.Top = append(token.Top, newTokenLogprob(top, x.Top[k].LogP))
			}
			l.Content = append(l.Content, token)
		}
		return l
	}
	if body.Stream {
		answer.Object = "chat.completion.chunk"
		return s.stream(r.Context(), w, asked, body.withUsage, func(i int, p piece, reason *string) any {
			part := answer
			delta := &chatMessage{}
			if tellers[i].begin() {
				delta.Role, delta.Content = "assistant", &p.text
			}
			if p.text != "" {
				delta.Content = &p.text
			}
			part.Choices = []chatChoice{{Index: i, Delta: delta, Logprobs: logprobs(i, p.logs), FinishReason: reason}}
			return part
		}, func(used *usage) any {
			part := answer
			part.Choices, part.Usage = []chatChoice{}, used
			return part
		})
	}
	results, used, err := s.generate(r.Context(), w, asked)
	if err != nil {
		return err
	}
	for i, result := range results {
		reason := finishReason(result)
		answer.Choices = append(answer.Choices, chatChoice{
			Index: i, Message: &chatMessage{Role: "assistant", Content: &result.Text},
			Logprobs: logprobs(i, result.Logprobs), FinishReason: &reason,
		})
	}
	answer.Usage = used
	return writeJSON(w, http.StatusOK, answer)
}

// readMessages reads the messages of a chat. developer is another name of system.
func readMessages(raw []json.RawMessage) ([]chat.Message, error) {
	if len(raw) == 0 {
		return nil, invalid("messages", "messages is missing or empty")
	}
	var messages []chat.Message
	for i, one := range raw {
		at := place("messages", i)
		var m struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
			Name    string          `json:"name"`
		}
		if err := decodeObject(one, &m, at, map[string]string{"tool_calls": "[]", "refusal": `""`}); err != nil {
			return nil, err
		}
		switch m.Role {
		case "developer":
			m.Role = "system"
		case "system", "user", "assistant":
		default:
			return nil, invalid(at+".role", "%s.role is %.40q, want system, developer, user or assistant", at, m.Role)
		}
		text, err := contentText(m.Content, at+".content")
		if err != nil {
			return nil, err
		}
		messages = append(messages, chat.Message{Role: m.Role, Content: text, Name: m.Name})
	}
	return messages, nil
}

// contentText returns the text of a message: a string, or parts of text. at is its place.
func contentText(raw json.RawMessage, at string) (string, error) {
	var text string
	if len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil || parts == nil {
		return "", invalid(at, "%s is neither a text nor an array of parts", at)
	}
	for i, raw := range parts {
		var part struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		var kind struct{ Type string }
		if json.Unmarshal(raw, &kind) == nil && kind.Type != "text" {
			return "", invalid(place(at, i), "%s is of the type %.40q: only text is supported", place(at, i), kind.Type)
		}
		if err := decodeObject(raw, &part, place(at, i), nil); err != nil {
			return "", err
		}
		text += part.Text
	}
	return text, nil
}
