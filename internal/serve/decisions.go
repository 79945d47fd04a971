package serve

import (
	"encoding/json"
	"net/http"
	"strings"
)

// decisionRequest is the body of /v1/decisions.
type decisionRequest struct {
	Model     string            `json:"model"`
	Input     json.RawMessage   `json:"input"` // a text, or messages
	Questions []json.RawMessage `json:"questions"`
}

// clientFields tell a provider about its client, or how to keep what it sends. They change no answer.
var clientFields = map[string]string{
	"user": "*", "safety_identifier": "*", "prompt_cache_key": "*", "prompt_cache_options": "*",
}

// decisionQuestion is one of the questions. Instructions are a text or parts.
type decisionQuestion struct {
	Type         string            `json:"type"`
	Name         *string           `json:"name"`
	Instructions json.RawMessage   `json:"instructions"`
	Choices      []json.RawMessage `json:"choices"` // of a choice
	Levels       []json.RawMessage `json:"levels"`  // of a score
}

// decisionAnswers is the answer of /v1/decisions.
type decisionAnswers struct {
	Model   string        `json:"model"`
	Answers []any         `json:"answers"`
	Usage   decisionUsage `json:"usage"`
}

type decisionUsage struct {
	Input        int            `json:"input_tokens"`
	InputDetails map[string]int `json:"input_tokens_details"`
	Output       int            `json:"output_tokens"`
	Details      map[string]int `json:"output_tokens_details"`
	Total        int            `json:"total_tokens"`
}

type predicateAnswer struct {
	Type        string  `json:"type"`
	Name        *string `json:"name"`
	Probability float64 `json:"probability"`
}

type choiceAnswer struct {
	Type          string              `json:"type"`
	Name          *string             `json:"name"`
	Choice        any                 `json:"choice"` // a text, or true or false if that was the option
	Confidence    float64             `json:"confidence"`
	Probabilities []choiceProbability `json:"probabilities"`
}

type choiceProbability struct {
	Value       any     `json:"value"`
	Probability float64 `json:"probability"`
}

type scoreAnswer struct {
	Type          string             `json:"type"`
	Name          *string            `json:"name"`
	Score         float64            `json:"score"`
	Confidence    float64            `json:"confidence"`
	Probabilities []scoreProbability `json:"probabilities"`
}

type scoreProbability struct {
	Value       int     `json:"value"` // the level, from 0
	Label       string  `json:"label"`
	Probability float64 `json:"probability"`
}

// decisions answers questions in the form of OpenAI's Decisions API.
func (s *Server) decisions(w http.ResponseWriter, r *http.Request) error {
	var body decisionRequest
	if err := s.readBody(w, r, &body, clientFields); err != nil {
		return err
	}
	m, err := s.find(body.Model)
	if err != nil {
		return err
	}
	if err := s.checkCount("questions", len(body.Questions)); err != nil {
		return err
	}
	x, err := readInput(body.Input)
	if err != nil {
		return err
	}
	wire, questions, values := make([]decisionQuestion, len(body.Questions)), make([]question, len(body.Questions)),
		make([][]any, len(body.Questions))
	for i, raw := range body.Questions {
		at := index("questions", i)
		if err := decodeObject(raw, &wire[i], at, nil); err != nil {
			return err
		}
		if questions[i], values[i], err = wire[i].read(at); err != nil {
			return err
		}
		questions[i].input = x
	}
	all, tokens, err := s.decide(r.Context(), w, m, questions)
	if err != nil {
		return err
	}
	answer := decisionAnswers{Model: m.id, Usage: decisionUsage{
		Input: tokens, Total: tokens,
		InputDetails: map[string]int{"cached_tokens": 0, "cache_write_tokens": 0},
		Details:      map[string]int{"reasoning_tokens": 0},
	}}
	for i := range all {
		answer.Answers = append(answer.Answers, wire[i].answer(&all[i], values[i]))
	}
	return writeJSON(w, http.StatusOK, answer)
}

// read returns a question and the values of its options as the client gave them.
func (q *decisionQuestion) read(at string) (question, []any, error) {
	x := question{at: at, kind: q.Type}
	var values []any
	var err error
	switch q.Type {
	case kindPredicate:
	case kindChoice:
		x.optionsAt = "choices"
		if q.Levels != nil {
			return x, nil, invalid(at+".levels", "%s is a choice: it has choices, no levels", at)
		}
		x.options, values, err = readOptions(q.Choices, at+".choices", "value", true)
	case kindScore:
		x.optionsAt = "levels"
		if q.Choices != nil {
			return x, nil, invalid(at+".choices", "%s is a score: it has levels, no choices", at)
		}
		x.options, values, err = readOptions(q.Levels, at+".levels", "label", false)
	default:
		return x, nil, invalid(at+".type", "%s.type is %.100q, want predicate, choice or score", at, q.Type)
	}
	if q.Type == kindPredicate && (q.Choices != nil || q.Levels != nil) {
		return x, nil, invalid(at, "%s is a predicate: it has neither choices nor levels", at)
	}
	if err == nil && q.Instructions != nil && string(q.Instructions) != "null" {
		var s state
		if s, err = readContent(q.Instructions, at+".instructions"); err == nil {
			x.instructions, x.fields = s.text, s.fields
		}
	}
	return x, values, err
}

// readOptions returns options, each a JSON object with a name and perhaps a description. A name is a
// text or, with truth, true or false.
func readOptions(raw []json.RawMessage, at, name string, truth bool) (options []option, values []any, err error) {
	for i, r := range raw {
		at := index(at, i)
		var o struct {
			Value       any     `json:"value"`
			Label       *string `json:"label"`
			Description *string `json:"description"`
		}
		if err := decodeObject(r, &o, at, nil); err != nil {
			return nil, nil, err
		}
		if truth && o.Label != nil || !truth && o.Value != nil {
			return nil, nil, invalid(at, "%s has both value and label, or the wrong one of them: want %s", at, name)
		}
		if o.Label != nil {
			o.Value = *o.Label
		}
		x := option{}
		switch v := o.Value.(type) {
		case string:
			x.text = v
		case bool:
			x.text = "false"
			if v {
				x.text = "true"
			}
		default:
			return nil, nil, invalid(at+"."+name, "%s.%s is missing, or no text", at, name)
		}
		if o.Description != nil {
			x.description = *o.Description
		}
		options, values = append(options, x), append(values, o.Value)
	}
	return options, values, nil
}

// answer returns the answer to a question whose options have these values; nil: their texts.
func (q *decisionQuestion) answer(d *decided, values []any) any {
	value := func(i int) any {
		if values == nil {
			return d.options[i].text
		}
		return values[i]
	}
	switch q.Type {
	case kindPredicate:
		return predicateAnswer{Type: q.Type, Name: q.Name, Probability: d.probabilities[0]}
	case kindChoice:
		a := choiceAnswer{Type: q.Type, Name: q.Name, Choice: value(d.best()),
			Confidence: choiceConfidence(d.probabilities)}
		for i, p := range d.probabilities {
			a.Probabilities = append(a.Probabilities, choiceProbability{value(i), p})
		}
		return a
	}
	a := scoreAnswer{Type: q.Type, Name: q.Name, Score: score(d.probabilities),
		Confidence: scoreConfidence(d.probabilities)}
	for i, p := range d.probabilities {
		a.Probabilities = append(a.Probabilities, scoreProbability{i, d.options[i].text, p})
	}
	return a
}

// readInput returns the input of decisions: a text, or messages. Of several messages each becomes a
// line with its role before it.
func readInput(raw json.RawMessage) (state, error) {
	const at = "input"
	var text string
	if raw == nil || string(raw) == "null" {
		return state{}, invalid(at, "input is missing")
	}
	if json.Unmarshal(raw, &text) == nil {
		return textState(text), nil
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return state{}, invalid(at, "input is neither a text nor an array of messages")
	}
	if len(items) == 0 {
		return state{}, invalid(at, "input is an empty array")
	}
	var lines []string
	var last state
	for i, item := range items {
		at := index(at, i)
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(item, &kind) == nil && kind.Type != "" && kind.Type != "message" {
			return state{}, invalid(at, "%s is a %.100s: only messages are supported", at, kind.Type)
		}
		var message struct {
			Type    string          `json:"type"`
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		}
		if err := decodeObject(item, &message, at, nil); err != nil {
			return state{}, err
		}
		switch message.Role {
		case "user", "assistant", "system", "developer":
		default:
			return state{}, invalid(at+".role", "%s.role is %.100q, want user, assistant, system or developer",
				at, message.Role)
		}
		var err error
		if last, err = readContent(message.Content, at+".content"); err != nil {
			return state{}, err
		}
		lines = append(lines, message.Role+": "+last.text)
	}
	if len(items) == 1 {
		return last, nil
	}
	return textState(strings.Join(lines, "\n")), nil
}

// readContent returns the text of a message or of instructions: a text, or parts of text and JSON, one on
// each line. A single JSON object, or a text that is one, has fields.
func readContent(raw json.RawMessage, at string) (state, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return textState(text), nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil || len(parts) == 0 {
		return state{}, invalid(at, "%s is neither a text nor an array of parts", at)
	}
	var lines []string
	for i, part := range parts {
		at := index(at, i)
		var p struct {
			Type string          `json:"type"`
			Text *string         `json:"text"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(part, &p); err != nil {
			return state{}, jsonError(err, at)
		}
		known := map[string]bool{"input_text": true, "output_text": true, "input_json": true}
		if !known[p.Type] {
			return state{}, invalid(at, "%s is a %.100q: only parts of input_text, output_text and input_json are "+
				"supported", at, p.Type)
		}
		if err := decodeObject(part, &p, at, nil); err != nil {
			return state{}, err
		}
		switch {
		case p.Type == "input_json" && p.Data != nil && p.Text == nil:
			if len(parts) == 1 {
				return jsonState(p.Data), nil
			}
			lines = append(lines, compact(p.Data))
		case p.Type != "input_json" && p.Text != nil && !given(p.Data):
			lines = append(lines, *p.Text)
		default:
			return state{}, invalid(at, "%s: want text of a part of text, and data of input_json", at)
		}
	}
	return textState(strings.Join(lines, "\n")), nil
}
