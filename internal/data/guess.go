package data

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Guess is what a file of rows looks like: which field is the text and which the answer.
type Guess struct {
	Reading  // columns are there if the first line does not name them
	Fields   []string
	Messages string  // the field with a conversation; then there is no text and no target
	Text     string  // the field that is read
	Target   string  // the field that is to be predicted
	Labels   []Label // the values of Target, the most frequent first, if it is a class; none: free text
	Rows     int
}

// The names that people give to fields of either kind, the surest first.
var (
	targetNames = []string{"label", "labels", "class", "category", "intent", "sentiment", "target", "completion", "answer", "output", "response", "summary", "translation"}
	textNames   = []string{"text", "sentence", "input", "prompt", "question", "message", "review", "content", "document", "body"}
)

// most is how many values a class may have.
const mostLabels = 200

// Look reads a file and guesses what its fields are for.
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
				s.Columns = append(s.Columns, "column"+string(rune('1'+i)))
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
			if said, err := conversation(r.lists[f]); err == nil && len(said) > 0 {
				g.Messages = f
				return g, nil
			}
		}
	}
	isClass := func(f string) bool {
		n := len(values[f])
		return n >= 2 && n <= mostLabels && n <= max(2, g.Rows/3)
	}
	g.Target = pick(g.Fields, targetNames, func(a, b string) int { // a class before free text, fewer values before more
		return cmp.Or(cmp.Compare(rank(!isClass(a)), rank(!isClass(b))), cmp.Compare(len(values[a]), len(values[b])))
	}, func(f string) bool { return isClass(f) && length[f] < 40*g.Rows })
	others := slices.DeleteFunc(slices.Clone(g.Fields), func(f string) bool {
		return f == g.Target || slices.ContainsFunc(targetNames, func(n string) bool { return strings.EqualFold(f, n) })
	})
	readable := slices.DeleteFunc(slices.Clone(others), func(f string) bool { return isClass(g.Target) && len(values[f]) <= len(values[g.Target]) }) // others are labels, too
	g.Text = pick(readable, textNames,
		func(a, b string) int { return cmp.Compare(length[b], length[a]) }, func(string) bool { return true })
	if g.Target != "" && isClass(g.Target) {
		names := labelNames(records, g.Target, others, values)
		for v := range values[g.Target] {
			g.Labels = append(g.Labels, Label{v, cmp.Or(names[v], v)})
		}
		slices.SortFunc(g.Labels, func(a, b Label) int {
			return cmp.Or(cmp.Compare(values[g.Target][b.Value], values[g.Target][a.Value]), strings.Compare(a.Value, b.Value))
		})
	}
	if s.Columns != nil { // names that say what they are for
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

// labelNames are the labels' names, where another field has one for each number.
func labelNames(records []record, target string, others []string, values map[string]map[string]int) map[string]string {
	number := func(s string) bool { return strings.Trim(s, "0123456789-.") == "" }
	for v := range values[target] {
		if !number(v) {
			return nil // they are names
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

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pick is the field whose name is known, else the first by order of those that will do.
func pick(fields, names []string, order func(a, b string) int, will func(string) bool) string {
	for _, n := range names {
		for _, f := range fields {
			if strings.EqualFold(f, n) {
				return f
			}
		}
	}
	fields = slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return !will(f) })
	if len(fields) == 0 {
		return ""
	}
	return slices.MinFunc(fields, order)
}

func (s Source) isTable() bool {
	return s.tabs() || strings.HasSuffix(strings.ToLower(s.Path), ".csv")
}

// headless tells whether the first line of a table is a row like the others: one of its cells is a value that its column has again.
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
