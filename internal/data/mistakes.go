package data

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// mistakes are the errors in a file's rows. The same mistake in many rows is one.
type mistakes struct {
	name string // of the file
	all  []*mistake
	by   map[string]*mistake // by the error's text without numbers
}

type mistake struct {
	err   error
	lines []int // the first ones
	rows  int
}

// varying finds what differs between the errors of one mistake: numbers and characters outside
// quotation marks.
var varying = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+`)

func (m *mistakes) add(line int, err error) {
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
	if len(same.lines) < 4 {
		same.lines = append(same.lines, line)
	}
}

// maxErrors is the largest number of different mistakes that an error lists.
const maxErrors = 20

// err returns an error with a line for each mistake; nil without mistakes.
func (m *mistakes) err() error {
	var errs []error
	left := 0
	for i, x := range m.all {
		if i >= maxErrors {
			left += x.rows
			continue
		}
		err := fmt.Errorf("%s:%d: %w", m.name, x.lines[0], x.err)
		if n := x.rows - 1; n > 0 {
			lines := strings.Trim(strings.ReplaceAll(fmt.Sprint(x.lines[1:]), " ", ", "), "[]")
			if n >= len(x.lines) {
				lines += ", …"
			}
			err = fmt.Errorf("%w (and in %d more %s: line %s)", err, n, plural(n, "row"), lines)
		}
		errs = append(errs, err)
	}
	if left > 0 {
		errs = append(errs, fmt.Errorf("and %d more %s with errors", left, plural(left, "row")))
	}
	return errors.Join(errs...)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
