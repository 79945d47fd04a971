package data

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Encoder turns text into token ids.
type Encoder interface {
	// EncodeInput is the ids of an input, with what stands before every text (BOS).
	EncodeInput(text string) ([]int32, error)
	// Encode is the ids of a text without special tokens.
	Encode(text string) ([]int32, error)
}

// Label is a class: the value that rows have, and the name that stands for it in the target.
type Label struct{ Value, Name string }

// Format is how a row becomes tokens: what the task file says under data, and a prompt file keeps for later.
type Format struct {
	Input, Target Template
	Labels        []Label // none: free text
	field         string  // the target's field whose values are labels
	messages      string  // the field with a conversation, in place of Input and Target
	chat          Renderer
	ends          []int32 // what may end an answer in a chat
}

// NewFormat reads the templates and labels of a task.
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
		return nil, fmt.Errorf("labels: there is one label, want at least two")
	}
	fields := f.Target.Fields()
	if len(fields) != 1 {
		return nil, fmt.Errorf("target: with labels, the target %q must have one field, the label's; it has %d", target, len(fields))
	}
	f.field = fields[0]
	if slices.Contains(f.Input.Fields(), f.field) {
		return nil, fmt.Errorf("input: the input %q shows the label's field %q", input, f.field)
	}
	for i, l := range labels {
		for _, o := range labels[:i] {
			if l.Value == o.Value || l.Name == o.Name {
				return nil, fmt.Errorf("labels: %q (%s) is there twice", l.Name, l.Value)
			}
		}
	}
	return f, nil
}

// Choice is a label as the model would write it.
type Choice struct {
	Name string
	IDs  []int32
}

// Choices are the labels' target tokens, in the order of Labels. Two labels of the same tokens are an error.
func (f *Format) Choices(enc Encoder) ([]Choice, error) {
	var choices []Choice
	for _, l := range f.Labels {
		text, err := f.Target.Fill(map[string]string{f.field: l.Name})
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
				return nil, fmt.Errorf("labels %q and %q are the same tokens", c.Name, l.Name)
			}
		}
		choices = append(choices, Choice{l.Name, ids})
	}
	return choices, nil
}

// cut shortens the longest field of an input until it has at most room tokens.
func (f *Format) cut(values map[string]string, enc Encoder, room int) (text string, ids []int32, err error) {
	longest := ""
	for _, field := range f.Input.Fields() {
		if len(values[field]) > len(values[longest]) {
			longest = field
		}
	}
	whole := []rune(values[longest])
	shorter := maps.Clone(values)
	fits := func(n int) bool {
		shorter[longest] = string(whole[:n])
		if text, err = f.Input.Fill(shorter); err == nil {
			text, ids, err = Said(f.chat, text, enc)
		}
		return err == nil && len(ids) <= room
	}
	// The first length that does not fit, by bisection: a text's tokens grow with it, but for a merge at its end.
	n := sort.Search(len(whole), func(n int) bool { return !fits(n + 1) })
	for ; n >= 0; n-- {
		if fits(n) {
			return text, ids, nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("input: %w", err)
		}
	}
	return "", nil, fmt.Errorf("the target and the template alone are too long: %d tokens are left for the input", room)
}

// label finds the label of a row's value.
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
	if len(names) > 20 {
		names = append(names[:20], "…")
	}
	return 0, fmt.Errorf("field %q is %q, which is not one of the labels %s", f.field, value, strings.Join(names, ", "))
}
