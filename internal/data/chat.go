package data

import (
	"encoding/json"
	"errors"
	"fmt"
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

// target returns the ids of a target without its end token.
func (f *Format) target(text string, enc Encoder) ([]int32, error) {
	if f.chat == nil {
		return enc.Encode(text)
	}
	_, rest, err := f.turn(question, text)
	if err != nil {
		return nil, err
	}
	return f.answer(rest, enc)
}

// answer returns the ids of a rendered answer, up to the token that ends it.
func (f *Format) answer(rest string, enc Encoder) ([]int32, error) {
	ids, err := enc.Encode(rest)
	if i := slices.IndexFunc(ids, f.isEnd); i >= 0 {
		ids = ids[:i]
	}
	return ids, err
}

// conversation reads the messages of a row's field.
func conversation(raw json.RawMessage) ([]chat.Message, error) {
	var turns []map[string]any
	if err := json.Unmarshal(raw, &turns); err != nil {
		return nil, errors.New(`want a list of {"role": …, "content": …}`)
	}
	messages := make([]chat.Message, len(turns))
	for i, t := range turns {
		role, _ := t["role"].(string)
		content, ok := t["content"].(string)
		switch {
		case !slices.Contains([]string{"system", "user", "assistant"}, role):
			return nil, fmt.Errorf("turn %d has the role %q, want system, user or assistant",
				i+1, role)
		case !ok:
			return nil, fmt.Errorf("turn %d has no text in content", i+1)
		}
		for key := range t {
			if key != "role" && key != "content" && t[key] != nil {
				return nil, fmt.Errorf("turn %d has the unknown key %q, want only role and content",
					i+1, key)
			}
		}
		messages[i] = chat.Message{Role: role, Content: content}
	}
	return messages, nil
}

// addConversation appends a row for each answer of the assistant.
func (s *Set) addConversation(r record, f *Format, enc Encoder, o Options) error {
	raw, ok := r.lists[f.messages]
	if !ok {
		return fmt.Errorf("no list %q in the row; it has %s", f.messages, list(r.values))
	}
	messages, err := conversation(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", f.messages, err)
	}
	answers := 0
	for i, m := range messages {
		if m.Role != "assistant" {
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
		if row.Target, err = f.answer(rest, enc); err != nil {
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
		return fmt.Errorf("%s: the conversation has no turn of the assistant", f.messages)
	}
	return nil
}
