package data

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Guess is what the fields of a file of rows seem to be for.
type Guess struct {
	Reading  // with Columns if the first line is a row
	Fields   []string
	Messages string  // the field with a conversation; if set, Text and Target are empty
	Text     string  // the field for the input
	Target   string  // the field for the target
	Labels   []Label // if Target is a class: its values, most frequent first
	Rows     int
}

// Usual names of fields of either kind, the least ambiguous first.
var (
	targetNames = []string{
		"label", "labels", "class", "category", "intent", "sentiment", "target", "completion", "answer",
		"output", "response", "summary", "translation",
	}
	textNames = []string{
		"text", "sentence", "input", "prompt", "question", "message", "review", "content", "document",
		"body",
	}
)

// mostLabels is the largest number of values that a class can have.
const mostLabels = 200

// meanLabel is the largest mean length of a class's values, in bytes.
const meanLabel = 40

// Look reads a file and guesses what its fields are for: first by their names, then by their
// values.
func Look(path string) (*Guess, error) {
	g := &Guess{}
	s := Source{Path: path}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	if s.isTable() {
		if width, headless := s.headless(records); headless {
			for i := range width {
				s.Columns = append(s.Columns, fmt.Sprintf("column%d", i+1))
			}
			if records, err = s.records(); err != nil {
				return nil, err
			}
		}
	}
	g.Reading, g.Rows = s.Reading, len(records)
	values := map[string]map[string]int{}
	length := map[string]int{}
	for _, r := range records {
		if r.err != nil {
			continue
		}
		for k, v := range r.values {
			if values[k] == nil {
				values[k] = map[string]int{}
				g.Fields = append(g.Fields, k)
			}
			values[k][v]++
			length[k] += len(v)
		}
	}
	slices.Sort(g.Fields)
	for _, r := range records {
		for _, f := range slices.Sorted(maps.Keys(r.lists)) {
			if messages, err := conversation(r.lists[f]); err == nil && len(messages) > 0 {
				g.Messages = f
				return g, nil
			}
		}
	}
	isClass := func(f string) bool {
		n := len(values[f])
		return n >= 2 && n <= mostLabels && n <= max(2, g.Rows/3)
	}
	g.Target = pick(g.Fields, targetNames,
		func(f string) bool { return isClass(f) && length[f] < meanLabel*g.Rows },
		func(a, b string) int { return cmp.Compare(len(values[a]), len(values[b])) })
	others := slices.DeleteFunc(slices.Clone(g.Fields), func(f string) bool {
		named := func(name string) bool { return strings.EqualFold(f, name) }
		return f == g.Target || slices.ContainsFunc(targetNames, named)
	})
	// A field with at most as many values as the class is another label.
	texts := slices.DeleteFunc(slices.Clone(others), func(f string) bool {
		return isClass(g.Target) && len(values[f]) <= len(values[g.Target])
	})
	g.Text = pick(texts, textNames,
		func(string) bool { return true },
		func(a, b string) int { return cmp.Compare(length[b], length[a]) })
	if g.Target != "" && isClass(g.Target) {
		names := labelNames(records, g.Target, others, values)
		for v := range values[g.Target] {
			g.Labels = append(g.Labels, Label{v, cmp.Or(names[v], v)})
		}
		slices.SortFunc(g.Labels, func(a, b Label) int {
			count := values[g.Target]
			return cmp.Or(cmp.Compare(count[b.Value], count[a.Value]), strings.Compare(a.Value, b.Value))
		})
	}
	if s.Columns != nil { // names of our own: say what the columns are for
		for i, c := range s.Columns {
			switch c {
			case g.Text:
				s.Columns[i], g.Text = "text", "text"
			case g.Target:
				s.Columns[i], g.Target = "label", "label"
			}
		}
		g.Columns, g.Fields = s.Columns, slices.Sorted(slices.Values(s.Columns))
	}
	return g, nil
}

// labelNames returns a name for each label if the labels are numbers and another field has one name
// for each; nil otherwise. values counts the values of each field.
func labelNames(
	records []record, target string, others []string, values map[string]map[string]int,
) map[string]string {
	number := func(s string) bool { return strings.Trim(s, "0123456789-.") == "" }
	for v := range values[target] {
		if !number(v) {
			return nil // already a name
		}
	}
	for _, f := range others {
		names := map[string]string{}
		for _, r := range records {
			if v, name := r.values[target], r.values[f]; r.err == nil {
				if old, ok := names[v]; number(name) || ok && old != name {
					names = nil
					break
				}
				names[v] = name
			}
		}
		if len(names) == len(values[target]) && len(values[f]) == len(names) {
			return names
		}
	}
	return nil
}

// pick returns the field with the first of the usual names, else the first in order of the fields
// that may do; empty if there is none.
func pick(fields, names []string, may func(string) bool, order func(a, b string) int) string {
	for _, n := range names {
		for _, f := range fields {
			if strings.EqualFold(f, n) {
				return f
			}
		}
	}
	fields = slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return !may(f) })
	if len(fields) == 0 {
		return ""
	}
	return slices.MinFunc(fields, order)
}

func (s Source) isTable() bool {
	return s.tabs() || strings.HasSuffix(strings.ToLower(s.Path), ".csv")
}

// headless reports whether a table's first line is a row and not a header: one of its cells is a
// value that its column has again. width is the number of columns.
func (s Source) headless(records []record) (width int, headless bool) {
	var names []string
	for _, r := range records {
		if r.err != nil {
			continue
		}
		for k, v := range r.values {
			if k == v {
				headless = true
			}
		}
		if names == nil {
			for k := range r.values {
				names = append(names, k)
			}
		}
	}
	return len(names), headless
}
