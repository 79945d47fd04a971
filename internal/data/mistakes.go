package data

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Mistakes collects the errors in rows. The same mistake in many rows is one.
type Mistakes struct {
	all []*mistake
	by  map[string]*mistake // by the error's text without numbers
}

type mistake struct {
	err    error
	places []string // the first ones
	rows   int
}

// varying finds what differs between the errors of one mistake: numbers and characters outside
// quotation marks.
var varying = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+`)

// Add adds the error of a row. place is where the row is, as in rows.csv:3.
func (m *Mistakes) Add(place string, err error) {
	key := varying.ReplaceAllStringFunc(err.Error(), func(s string) string {
		if s[0] == '"' {
			return s
		}
		return "…"
	})
	same, ok := m.by[key]
	if !ok {
		if m.by == nil {
			m.by = map[string]*mistake{}
		}
		same = &mistake{err: err}
		m.by[key], m.all = same, append(m.all, same)
	}
	same.rows++
	if len(same.places) < 4 {
		same.places = append(same.places, place)
	}
}

// maxErrors is the largest number of different mistakes that an error lists.
const maxErrors = 20

// Err returns an error with a line for each mistake; nil without mistakes.
func (m *Mistakes) Err() error {
	var errs []error
	left := 0
	for i, x := range m.all {
		if i >= maxErrors {
			left += x.rows
			continue
		}
		err := fmt.Errorf("%s: %w", x.places[0], x.err)
		if n := x.rows - 1; n > 0 {
			err = fmt.Errorf("%w (and %d more: %s)", err, n, x.others())
		}
		errs = append(errs, err)
	}
	if left > 0 {
		errs = append(errs, fmt.Errorf("and %d more %s with errors", left, plural(left, "row")))
	}
	return errors.Join(errs...)
}

// others returns the places after the first one; of lines of the same file only the numbers.
func (x *mistake) others() string {
	file := x.places[0][:strings.LastIndexByte(x.places[0], ':')+1]
	var places []string
	for _, p := range x.places[1:] {
		places = append(places, strings.TrimPrefix(p, file))
	}
	if file != "" {
		places[0] = "line " + places[0]
	}
	if x.rows > len(x.places) {
		places = append(places, "…")
	}
	return strings.Join(places, ", ")
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
