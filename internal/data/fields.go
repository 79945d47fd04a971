package data

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fields are the fields of a row by their names. The field b of an object a has the name a.b.
type Fields map[string]Field

// Field is the value of a field.
type Field struct {
	Text string
	Not  string // what the field is instead of a text, as in "null"; empty: it is a text

	list  json.RawMessage // of a list
	place int             // its position in the row
}

// Texts returns fields with these texts.
func Texts(texts map[string]string) Fields {
	f := Fields{}
	for name, text := range texts {
		f[name] = Field{Text: text}
	}
	return f
}

// put adds a field.
func (f Fields) put(name string, value Field) {
	value.place = len(f)
	if old, ok := f[name]; ok {
		value = Field{Not: "there twice, as a field of the row and as a field of an object", place: old.place}
	}
	f[name] = value
}

// text returns the text of a field.
func (f Fields) text(name string) (string, error) {
	v, ok := f[name]
	switch {
	case !ok:
		if n := strings.LastIndexByte(name, '.'); n > 0 && f[name[:n]].Not == "null" {
			return "", fmt.Errorf("the field %q is null, so there is no %q", name[:n], name)
		}
		return "", fmt.Errorf("no field %q in the row; it has %s%s", name, f.names(), f.otherSeparator())
	case v.Not != "":
		return "", fmt.Errorf("the field %q is %s", name, v.Not)
	}
	return v.Text, nil
}

// shownNames is the largest number of names or lines that an error lists.
const shownNames = 20

// names returns the names of the fields for an error.
func (f Fields) names() string {
	if len(f) == 0 {
		return "none"
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		names = append(names, shown(name))
	}
	if n := len(names) - shownNames; n > 0 {
		names = append(names[:shownNames], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// shown returns a name or value in quotation marks, shortened.
func shown(s string) string {
	if runes := []rune(s); len(runes) > 60 {
		s = string(runes[:60]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// separators are the usual ones between cells.
var separators = []string{",", ";", "\t", "|"}

// otherSeparator returns a hint if the only field's name has a separator in it.
func (f Fields) otherSeparator() string {
	if len(f) == 1 {
		for name := range f {
			for _, s := range separators {
				if strings.Contains(name, s) {
					return fmt.Sprintf("; is the separator %q? set data.separator", s)
				}
			}
		}
	}
	return ""
}

// listOf returns the JSON of a field that is a list.
func (f Fields) listOf(name string) (json.RawMessage, error) {
	v, ok := f[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("no field %q in the row; it has %s", name, f.names())
	case v.list != nil:
		return v.list, nil
	case v.Not != "":
		return nil, fmt.Errorf("the field %q is %s, want a list", name, v.Not)
	}
	return nil, fmt.Errorf("the field %q is a text, want a list", name)
}
