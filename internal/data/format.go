package data

import (
	"fmt"
	"slices"
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
		ids, err := enc.Encode(text)
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
