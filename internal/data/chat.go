package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ptune/internal/chat"
)

// Renderer renders a conversation with the chat template of a model. With begin, the text ends
// where the assistant's next turn begins.
type Renderer interface {
	Render(conversation []chat.Message, begin bool) (string, error)
}

// NewConversations returns the format of rows that hold a conversation in a field. Each turn of the
// assistant is a target, and the turns before it are its input.
func NewConversations(field string) *Format { return &Format{messages: field} }

// UseChat makes inputs turns of the user and targets turns of the assistant. ends are the tokens
// that can end a turn. It returns the one that the template puts after an answer, or ends[0] if
// none.
func (f *Format) UseChat(template Renderer, enc Encoder, ends []int32) (end int32, err error) {
	f.chat, f.ends = template, ends
	_, rest, err := f.turn(question, "yes")
	if err != nil {
		return 0, err
	}
	ids, err := enc.Encode(rest)
	if err != nil {
		return 0, err
	}
	if i := slices.IndexFunc(ids, f.isEnd); i >= 0 {
		return ids[i], nil
	}
	return ends[0], nil
}

func (f *Format) isEnd(id int32) bool { return slices.Contains(f.ends, id) }

// question is the conversation before an answer when only what follows the answer matters.
var question = []chat.Message{{Role: "user", Content: "?"}}

// turn returns the text before the assistant's answer, and the answer with what the template puts
// after it.
func (f *Format) turn(before []chat.Message, answer string) (head, rest string, err error) {
	if head, err = f.chat.Render(before, true); err != nil {
		return "", "", err
	}
	turn := chat.Message{Role: "assistant", Content: answer}
	whole, err := f.chat.Render(append(slices.Clip(before), turn), false)
	if err != nil {
		return "", "", err
	}
	rest, ok := strings.CutPrefix(whole, head)
	if !ok || !strings.Contains(rest, strings.TrimSpace(answer)) {
		return "", "", errors.New("cannot find the answer in the rendered chat: " +
			"the chat template does not begin an answer the way it renders one")
	}
	return head, rest, nil
}

// EncodeInput returns the text and the ids of an input. With a chat template the input is the
// user's turn; template may be nil.
func EncodeInput(template Renderer, text string, enc Encoder) (string, []int32, error) {
	if template == nil {
		ids, err := enc.EncodeInput(text)
		return text, ids, err
	}
	head, err := template.Render([]chat.Message{{Role: "user", Content: text}}, true)
	if err != nil {
		return "", nil, err
	}
	ids, err := enc.Encode(head) // the template writes BOS itself
	return head, ids, err
}

// target returns the ids of a target without its end token, as the continuation of what all inputs end
// with. They do not depend on the rest of the input, so a label has the same ids in every row.
func (f *Format) target(text string, enc Encoder) ([]int32, error) {
	if f.chat == nil {
		return f.encode(f.Input.tail(), text, enc)
	}
	head, rest, err := f.turn(question, text)
	if err != nil {
		return nil, err
	}
	return f.answer(head, rest, enc)
}

// encode returns the ids of a text that continues head.
func (f *Format) encode(head, text string, enc Encoder) ([]int32, error) {
	if f.Alone {
		return enc.Encode(text)
	}
	return enc.EncodeAfter(head, text)
}

// answer returns the ids of a rendered answer that continues head, up to the token that ends it.
func (f *Format) answer(head, rest string, enc Encoder) ([]int32, error) {
	ids, err := f.encode(head, rest, enc)
	if i := slices.IndexFunc(ids, f.isEnd); i >= 0 {
		ids = ids[:i]
	}
	return ids, err
}

// turn is a message of a conversation in a row.
type turn struct {
	chat.Message
	learned bool // an answer whose weight is not 0
}

// The keys of a turn: OpenAI's and transformers' names, and ShareGPT's.
var (
	roleKeys    = []string{"role", "from"}
	contentKeys = []string{"content", "value"}
	otherKeys   = []string{"name", "weight"}
)

// roles are the roles of turns by the names that files use.
var roles = map[string]string{
	"system": "system", "user": "user", "assistant": "assistant",
	"human": "user", "gpt": "assistant", // ShareGPT
}

// conversation reads the messages of a row's field.
func conversation(raw json.RawMessage) ([]turn, error) {
	var messages []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &messages); err != nil {
		return nil, errors.New(`want a list of {"role": …, "content": …} or {"from": …, "value": …}`)
	}
	turns := make([]turn, len(messages))
	for i, m := range messages {
		var err error
		if turns[i], err = readTurn(m); err != nil {
			return nil, fmt.Errorf("turn %d %w", i+1, err)
		}
	}
	return turns, nil
}

// readTurn reads a message. Its error continues "turn 1".
func readTurn(m map[string]json.RawMessage) (turn, error) {
	var t turn
	values := map[string]json.RawMessage{}
	known := slices.Concat(roleKeys, contentKeys, otherKeys)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		value := m[key]
		switch {
		case string(value) == "null":
		case !slices.Contains(known, key):
			return t, fmt.Errorf("has the unknown key %q, want only role, content, name and weight", key)
		default:
			values[key] = value
		}
	}
	role, err := oneOf(values, roleKeys)
	if err != nil {
		return t, err
	}
	var name string
	if err := json.Unmarshal(role, &name); err != nil || roles[name] == "" {
		return t, fmt.Errorf("has the role %s, want system, user or assistant", role)
	}
	t.Role = roles[name]
	content, err := oneOf(values, contentKeys)
	if err == nil {
		t.Content, err = contentText(content)
	}
	if err != nil {
		return t, err
	}
	if name, ok := values["name"]; ok && json.Unmarshal(name, &t.Name) != nil {
		return t, fmt.Errorf("has the name %s, want a text", name)
	}
	t.learned = t.Role == "assistant"
	if weight, ok := values["weight"]; ok {
		var w float64
		if json.Unmarshal(weight, &w) != nil || w != 0 && w != 1 {
			return t, fmt.Errorf("has the weight %s, want 0 or 1", weight)
		}
		t.learned = t.learned && w == 1
	}
	return t, nil
}

// oneOf returns the value of the one of two keys that a message has.
func oneOf(values map[string]json.RawMessage, keys []string) (json.RawMessage, error) {
	a, first := values[keys[0]]
	b, second := values[keys[1]]
	switch {
	case first && second:
		return nil, fmt.Errorf("has both %s and %s", keys[0], keys[1])
	case second:
		return b, nil
	case first:
		return a, nil
	}
	return nil, fmt.Errorf("has no %s", keys[0])
}

// contentText returns the text of a message's content: a string, or a list of parts of text.
func contentText(content json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if json.Unmarshal(content, &parts) != nil {
		return "", errors.New("has no text in content")
	}
	for i, p := range parts {
		if p.Type != "text" || p.Text == nil {
			return "", fmt.Errorf("has the content type %q in part %d, want only text", p.Type, i+1)
		}
		text += *p.Text
	}
	return text, nil
}

// addConversation appends a row for each answer of the assistant.
func (s *Set) addConversation(r record, f *Format, enc Encoder, o Options) error {
	raw, err := r.fields.listOf(f.messages)
	if err != nil {
		return err
	}
	turns, err := conversation(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", f.messages, err)
	}
	messages := make([]chat.Message, len(turns))
	for i, t := range turns {
		messages[i] = t.Message
	}
	answers := 0
	for i, m := range turns {
		if !m.learned {
			continue
		}
		answers++
		row := Row{Line: r.line, Label: -1, conversation: string(raw)}
		var rest string
		if row.Text, rest, err = f.turn(messages[:i], m.Content); err != nil {
			return fmt.Errorf("answer %d: %w", answers, err)
		}
		if row.Input, err = enc.Encode(row.Text); err != nil {
			return fmt.Errorf("answer %d: %w", answers, err)
		}
		if row.Target, err = f.answer(row.Text, rest, enc); err != nil {
			return fmt.Errorf("answer %d: %w", answers, err)
		}
		if len(row.Target) == 0 {
			return fmt.Errorf("answer %d has no token", answers)
		}
		row.Target = append(row.Target, o.EOS)
		if n := len(row.Input) + len(row.Target); n > o.MaxTokens {
			if o.OnTooLong != TooLongDrop {
				return fmt.Errorf("the conversation up to answer %d has %d tokens, but %s "+
					"(data.on_too_long can be drop)", answers, n, o.Limit)
			}
			s.Dropped++
			continue
		}
		s.Rows = append(s.Rows, row)
	}
	if answers == 0 {
		return fmt.Errorf("%s: the conversation has no turn of the assistant to learn", f.messages)
	}
	return nil
}
