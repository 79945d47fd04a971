package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ptune/internal/chat"
)

// Renderer makes text of a conversation, as a model's chat template does: up to the assistant's next turn, or whole.
type Renderer interface {
	Render(conversation []chat.Message, begin bool) (string, error)
}

// NewConversations is the format of rows that hold a conversation in a field: each answer of the assistant is a target, what was said
// before it is its input.
func NewConversations(field string) *Format { return &Format{messages: field} }

// UseChat has inputs said by the user and targets by the assistant. The token that ends an answer is the first of ends that the template
// puts behind one, or the first of all if it puts none.
func (f *Format) UseChat(by Renderer, enc Encoder, ends []int32) (end int32, err error) {
	f.chat, f.ends = by, ends
	_, rest, err := f.turn(asked, "yes")
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

// asked is a conversation for looking at a template.
var asked = []chat.Message{{Role: "user", Content: "?"}}

// turn is the text before the assistant's answer, and the answer with what the template puts behind it.
func (f *Format) turn(before []chat.Message, answer string) (head, rest string, err error) {
	if head, err = f.chat.Render(before, true); err != nil {
		return "", "", err
	}
	whole, err := f.chat.Render(append(slices.Clip(before), chat.Message{Role: "assistant", Content: answer}), false)
	if err != nil {
		return "", "", err
	}
	rest, ok := strings.CutPrefix(whole, head)
	if !ok || !strings.Contains(rest, strings.TrimSpace(answer)) {
		return "", "", errors.New("the chat template renders an answer otherwise than it begins one, so there is no knowing what is to be learned")
	}
	return head, rest, nil
}

// Said is the text and the ids of an input, which the user says where there is a chat template; by is nil where there is none.
func Said(by Renderer, text string, enc Encoder) (string, []int32, error) {
	if by == nil {
		ids, err := enc.EncodeInput(text)
		return text, ids, err
	}
	head, err := by.Render([]chat.Message{{Role: "user", Content: text}}, true)
	if err != nil {
		return "", nil, err
	}
	ids, err := enc.Encode(head) // the template has put what stands before every text
	return head, ids, err
}

// target is the ids of a target without its end token.
func (f *Format) target(text string, enc Encoder) ([]int32, error) {
	if f.chat == nil {
		return enc.Encode(text)
	}
	_, rest, err := f.turn(asked, text)
	if err != nil {
		return nil, err
	}
	return f.answer(rest, enc)
}

// answer is the ids of what a template makes of an answer, up to the token that ends it.
func (f *Format) answer(rest string, enc Encoder) ([]int32, error) {
	ids, err := enc.Encode(rest)
	if i := slices.IndexFunc(ids, f.isEnd); i >= 0 {
		ids = ids[:i]
	}
	return ids, err
}

// conversation reads the turns of a row's field.
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
			return nil, fmt.Errorf("turn %d is of %q, want system, user or assistant", i+1, role)
		case !ok:
			return nil, fmt.Errorf("turn %d has no content that is text", i+1)
		}
		for key := range t {
			if key != "role" && key != "content" && t[key] != nil {
				return nil, fmt.Errorf("turn %d has %q, which is not known here: a turn has role and content", i+1, key)
			}
		}
		messages[i] = chat.Message{Role: role, Content: content}
	}
	return messages, nil
}

// addConversation makes a row of each of the assistant's answers.
func (s *Set) addConversation(r record, f *Format, enc Encoder, o Options) error {
	raw, ok := r.lists[f.messages]
	if !ok {
		return fmt.Errorf("there is no list %q; the row has %s", f.messages, list(r.values))
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
		row := Row{Line: r.line, Label: -1, talk: string(raw)}
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
			return fmt.Errorf("answer %d has no token, so there is nothing to learn from it", answers)
		}
		row.Target = append(row.Target, o.EOS)
		if n := len(row.Input) + len(row.Target); n > o.MaxTokens {
			if o.OnTooLong != TooLongDrop {
				return fmt.Errorf("the conversation up to answer %d is %d tokens, but %s (data.on_too_long: drop would go on)", answers, n, o.Limit)
			}
			s.Dropped++
			continue
		}
		s.Rows = append(s.Rows, row)
	}
	if answers == 0 {
		return fmt.Errorf("%s: the assistant says nothing in it, so there is nothing to learn from the row", f.messages)
	}
	return nil
}
