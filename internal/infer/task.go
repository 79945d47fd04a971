package infer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"ptune/internal/chat"
	"ptune/internal/data"
	"ptune/internal/prompt"
)

// Tokenizer turns text into token ids and back.
type Tokenizer interface {
	data.Encoder
	Decode(ids []int32) string
}

// Base is what a task needs of the base model beside its tokenizer.
type Base interface {
	// ChatOf returns the base's chat template if its hash is sum.
	ChatOf(sum string) (*chat.Template, error)
}

// Task turns texts, the fields of rows and labels into token ids, by the metadata of a prompt.
type Task struct {
	meta     *prompt.Meta
	tok      Tokenizer
	template data.Template
	chat     data.Renderer // nil: inputs are plain text
}

// NewTask returns the task of a prompt. Without an input template the whole text is the input: that
// is so for an empty m, for a PEFT adapter and for a prompt trained on conversations. If m.Chat is set,
// the input is rendered as the user's turn.
func NewTask(m *prompt.Meta, b Base, tok Tokenizer) (*Task, error) {
	t := &Task{meta: m, tok: tok}
	var err error
	if t.template, err = data.ParseTemplate(cmp.Or(m.Input, "{text}")); err != nil {
		return nil, err
	}
	if m.Chat != "" {
		// A *chat.Template that is nil must not become a Renderer.
		c, err := b.ChatOf(m.Chat)
		if err != nil {
			return nil, err
		}
		t.chat = c
	}
	return t, nil
}

// ErrFields is wrapped by the error about a text for a template of several fields.
var ErrFields = errors.New("a text alone does not fill it")

// CheckText returns an error if a text alone does not fill the input template.
func (t *Task) CheckText() error {
	if n := len(t.template.Fields()); n != 1 {
		return fmt.Errorf("the template %q has %d fields, so %w", t.template, n, ErrFields)
	}
	return nil
}

// FieldNames returns the fields of the input template.
func (t *Task) FieldNames() []string { return t.template.Fields() }

// Text returns the token ids of an input whose one field is text.
func (t *Task) Text(text string) ([]int32, error) {
	if err := t.CheckText(); err != nil {
		return nil, err
	}
	return t.Fields(data.Fields{t.template.Fields()[0]: {Text: text}})
}

// Fields returns the token ids of an input made of a row's fields.
func (t *Task) Fields(fields data.Fields) ([]int32, error) {
	text, err := t.template.Fill(fields)
	if err != nil {
		return nil, err
	}
	_, ids, err := data.EncodeInput(t.chat, text, t.tok)
	return ids, err
}

// Messages returns the token ids of a conversation up to where the assistant's next turn begins. Each
// turn of the user fills the prompt's input template. A prompt that was trained with a template, but
// without a chat template, takes one turn of the user and gives it the ids of Text. base is the base's
// chat template; nil: it has none.
func (t *Task) Messages(conversation []chat.Message, base *chat.Template) ([]int32, error) {
	if t.meta.Input != "" && t.chat == nil {
		if len(conversation) != 1 || conversation[0].Role != "user" {
			return nil, errors.New("the prompt was trained without a chat template, so it takes one message of the user")
		}
		return t.Text(conversation[0].Content)
	}
	render := t.chat
	if render == nil && base == nil {
		return nil, errors.New("the base model has no chat template")
	} else if render == nil {
		render = base
	}
	turns := slices.Clone(conversation)
	if t.meta.Input != "" {
		if err := t.CheckText(); err != nil {
			return nil, err
		}
		field := t.template.Fields()[0]
		for i, m := range turns {
			if m.Role == "user" {
				text, err := t.template.Fill(data.Fields{field: {Text: m.Content}})
				if err != nil {
					return nil, err
				}
				turns[i].Content = text
			}
		}
	}
	text, err := render.Render(turns, true)
	if err != nil {
		return nil, err
	}
	return t.tok.Encode(text) // the template writes BOS itself
}

// Input returns the token ids of an input made of a row's fields. One of more than most tokens is an
// error, or with cut its longest field is cut.
func (t *Task) Input(fields data.Fields, most int, cut bool) ([]int32, error) {
	ids, err := t.Fields(fields)
	if err != nil || len(ids) <= most {
		return ids, err
	}
	f, _, err := t.Format()
	if err != nil {
		return nil, err
	}
	return f.EncodeInput(fields, t.tok, most, cut)
}

// noLimit is the longest input of a prompt whose rows had no limit.
const noLimit = 1 << 30

// Limit returns the most tokens of an input before a label of at most longest tokens, and whether longer
// inputs are cut, as in training. The model has that many positions, 0 for any number, and the soft
// prompt that many rows.
func (t *Task) Limit(positions, rows, longest int) (most int, cut bool) {
	most = noLimit
	if positions > 0 {
		most = positions - rows - longest
	}
	if t.meta.OnTooLong == data.TooLongCutInput && t.meta.MaxTokens > 0 {
		most, cut = min(most, t.meta.MaxTokens-longest), true
	}
	return most, cut
}

// Format returns how rows of files become inputs and targets, and the task's labels as the model
// would write them; none if targets are free text.
func (t *Task) Format() (*data.Format, []data.Choice, error) {
	labels := make([]data.Label, len(t.meta.Labels))
	for i, l := range t.meta.Labels {
		labels[i] = data.Label(l)
	}
	return t.format(labels)
}

// Choices returns labels as the model would write them as targets.
func (t *Task) Choices(labels []data.Label) ([]data.Choice, error) {
	_, choices, err := t.format(labels)
	return choices, err
}

func (t *Task) format(labels []data.Label) (*data.Format, []data.Choice, error) {
	m := t.meta
	f, err := data.NewFormat(m.Input, m.Target, labels)
	if m.Messages != "" {
		f, err = data.NewConversations(m.Messages), nil
	}
	if err == nil {
		f.Alone = !m.Continued
	}
	if err == nil && t.chat != nil {
		_, err = f.UseChat(t.chat, t.tok, []int32{m.EOS})
	}
	if err != nil {
		return nil, nil, err
	}
	choices, err := f.Choices(t.tok)
	return f, choices, err
}
