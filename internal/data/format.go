package data

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Encoder turns text into token ids.
type Encoder interface {
	// EncodeInput returns the ids of an input, with BOS if the tokenizer adds one.
	EncodeInput(text string) ([]int32, error)
	// Encode returns the ids of a text without special tokens.
	Encode(text string) ([]int32, error)
	// EncodeAfter returns the ids of a text that continues head.
	EncodeAfter(head, text string) ([]int32, error)
}

// Label is a class: the value in the rows, and the name for it in the target.
type Label struct{ Value, Name string }

// Format is how a row becomes tokens. It comes from the data section of a task file or from the
// metadata of a prompt file.
type Format struct {
	Input, Target Template
	Labels        []Label // none: free text
	// Alone has targets encoded as texts of their own, as ptune did before it encoded them as
	// continuations of their inputs.
	Alone    bool
	field    string   // the field of the target whose values are labels
	messages string   // the field with a conversation, instead of Input and Target
	chat     Renderer // nil: no chat template
	ends     []int32  // tokens that can end a turn in a chat
}

// NewFormat parses the templates and checks the labels of a task.
func NewFormat(input, target string, labels []Label) (*Format, error) {
	f := &Format{Labels: labels}
	var err error
	if f.Input, err = ParseTemplate(input); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if f.Target, err = ParseTemplate(target); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	if len(labels) == 0 {
		return f, nil
	}
	if len(labels) < 2 {
		return nil, errors.New("labels: only one label, want at least two")
	}
	fields := f.Target.Fields()
	if len(fields) != 1 {
		return nil, fmt.Errorf(
			"target: with labels, the target must have exactly one field, the label; "+
				"%q has %d", target, len(fields))
	}
	f.field = fields[0]
	if slices.Contains(f.Input.Fields(), f.field) {
		return nil, fmt.Errorf("input: the input %q contains the label's field %q", input, f.field)
	}
	for i, l := range labels {
		for _, o := range labels[:i] {
			if l.Value == o.Value || l.Name == o.Name {
				return nil, fmt.Errorf("labels: duplicate %q (%s)", l.Name, l.Value)
			}
		}
	}
	return f, nil
}

// How the score of a label follows from −log p of its tokens.
const (
	ScoreSum  = "sum"  // their sum: the likelihood of the label
	ScoreMean = "mean" // their mean, so that a label of many tokens is not less likely for that alone
)

// Choice is a label with its target tokens.
type Choice struct {
	Name string
	IDs  []int32
}

// Choices returns the choices in the order of Labels. Two labels with equal tokens are an error.
func (f *Format) Choices(enc Encoder) ([]Choice, error) {
	var choices []Choice
	for _, l := range f.Labels {
		text, err := f.Target.Fill(Fields{f.field: {Text: l.Name}})
		if err != nil {
			return nil, err
		}
		ids, err := f.target(text, enc)
		if err != nil {
			return nil, fmt.Errorf("label %q: %w", l.Name, err)
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("label %q has no token", l.Name)
		}
		for _, c := range choices {
			if slices.Equal(c.IDs, ids) {
				return nil, fmt.Errorf("labels %q and %q have the same tokens", c.Name, l.Name)
			}
		}
		choices = append(choices, Choice{l.Name, ids})
	}
	return choices, nil
}

// cut shortens the longest field of an input until it has at most `most` tokens.
func (f *Format) cut(fields Fields, enc Encoder, most int) (
	text string, ids []int32, err error) {
	longest := ""
	for _, field := range f.Input.Fields() {
		if len(fields[field].Text) > len(fields[longest].Text) {
			longest = field
		}
	}
	whole := []rune(fields[longest].Text)
	shorter := maps.Clone(fields)
	fits := func(n int) bool {
		shorter[longest] = Field{Text: string(whole[:n])}
		if text, err = f.Input.Fill(shorter); err == nil {
			text, ids, err = EncodeInput(f.chat, text, enc)
		}
		return err == nil && len(ids) <= most
	}
	// Bisect for the longest text that fits. Longer texts have more tokens, except when the
	// tokenizer merges at the end, so go down from there.
	n := sort.Search(len(whole), func(n int) bool { return !fits(n + 1) })
	for ; n >= 0; n-- {
		if fits(n) {
			return text, ids, nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("input: %w", err)
		}
	}
	return "", nil, fmt.Errorf(
		"the target and the template leave %d tokens for the input, which are too few",
		most)
}

// label returns the index of the label with a row's value.
func (f *Format) label(value string) (int, error) {
	for i, l := range f.Labels {
		if l.Value == value {
			return i, nil
		}
	}
	var names []string
	for _, l := range f.Labels {
		names = append(names, fmt.Sprintf("%q", l.Value))
	}
	if len(names) > shownNames {
		names = append(names[:shownNames], "…")
	}
	return 0, fmt.Errorf("field %q is %s, want one of the labels %s",
		f.field, shown(value), strings.Join(names, ", "))
}
