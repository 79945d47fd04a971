package data

import (
	"fmt"
	"slices"
	"strings"
)

// Template is text with fields in braces: {name}, or {a.b} for the field b of an object a. {{ and }}
// are literal braces.
type Template struct {
	source string
	parts  []part
}

type part struct {
	text  string
	field string // empty: literal text
}

// ParseTemplate reads a template.
func ParseTemplate(s string) (Template, error) {
	t := Template{source: s}
	text := strings.Builder{}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c:
			text.WriteByte(c)
			i++
		case c == '}':
			return t, fmt.Errorf("template %q has a } without {; write }} for a literal brace", s)
		case c == '{':
			end := strings.IndexAny(s[i+1:], "{}")
			if end < 0 || s[i+1+end] == '{' {
				return t, fmt.Errorf("template %q has a { without }; write {{ for a literal brace", s)
			}
			field := s[i+1 : i+1+end]
			if strings.TrimSpace(field) == "" {
				return t, fmt.Errorf("template %q has a field without a name", s)
			}
			t.parts = append(t.parts, part{text: text.String()}, part{field: field})
			text.Reset()
			i += end + 1
		default:
			text.WriteByte(c)
		}
	}
	t.parts = append(t.parts, part{text: text.String()})
	return t, nil
}

// tail returns the text after the last field.
func (t Template) tail() string {
	if len(t.parts) == 0 {
		return ""
	}
	return t.parts[len(t.parts)-1].text
}

// Fields returns the fields of the template, each once.
func (t Template) Fields() []string {
	var fields []string
	for _, p := range t.parts {
		if p.field != "" && !slices.Contains(fields, p.field) {
			fields = append(fields, p.field)
		}
	}
	return fields
}

// Fill returns the text with the texts of fields in place of their names. A field that is missing or
// no text is an error.
func (t Template) Fill(fields Fields) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.field == "" {
			b.WriteString(p.text)
			continue
		}
		text, err := fields.text(p.field)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (t Template) String() string { return t.source }

// KeptEscape returns the first \n, \r or \t in a text that was not read as a line break or tab, or "".
func KeptEscape(text string) string {
	for i := 0; i+1 < len(text); i++ {
		if text[i] == '\\' {
			if strings.IndexByte("nrt", text[i+1]) >= 0 {
				return text[i : i+2]
			}
			i++
		}
	}
	return ""
}
