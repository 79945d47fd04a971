package infer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"ptune/internal/data"
	"ptune/internal/failure"
)

// Input is a text to continue, or the fields of a row.
type Input struct {
	Text   string
	Fields data.Fields // nil: a text
	Blank  bool        // a blank line: nothing is generated for it
	Place  string      // where it came from, for errors
	Err    error       // why it could not be read; it is the last input
}

// ErrNoText is wrapped by the error about a stream without a text.
var ErrNoText = errors.New("there is no text")

// Texts returns texts as inputs.
func Texts(texts []string) []Input {
	var all []Input
	for i, text := range texts {
		all = append(all, Input{Text: text, Place: fmt.Sprintf("text %d", i+1)})
	}
	return all
}

// Rows reads all rows of a file or, if in is not nil, of in, and what was found out about them. Its
// error is a usage error and has one line for each mistake.
func Rows(from data.Source, in io.Reader) (all []Input, notes []string, err error) {
	var errs data.Mistakes
	notes, err = from.Each(in, func(line int, fields data.Fields, err error) {
		x := Input{Fields: fields, Place: fmt.Sprintf("%s:%d", from.Name(), line)}
		if err != nil {
			errs.Add(x.Place, err)
		}
		all = append(all, x)
	})
	if err == nil {
		err = errs.Err()
	}
	return all, notes, failure.Usage(err)
}

// Known returns inputs that are all there.
func Known(all []Input) <-chan Input {
	inputs := make(chan Input, len(all))
	for _, x := range all {
		inputs <- x
	}
	close(inputs)
	return inputs
}

// Lines returns the lines of in as they come or, if asked for, the rows of JSON that they contain.
// Blank lines between rows are ignored. At most ahead lines are read that nobody has received. name is
// for errors.
func Lines(in io.Reader, name string, rows bool, ahead int) <-chan Input {
	inputs := make(chan Input, ahead)
	go func() {
		defer close(inputs)
		found := false
		err := data.AllLines(in, name, func(n int, line string) error {
			found = true
			x := Input{Text: line, Place: fmt.Sprintf("%s:%d", name, n), Blank: strings.TrimSpace(line) == ""}
			if rows && x.Blank {
				return nil
			}
			if rows {
				var err error
				if x.Fields, err = data.ParseObject([]byte(line)); err != nil {
					return fmt.Errorf("%s: %w", x.Place, err)
				}
			}
			inputs <- x
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("%w in %s", ErrNoText, name)
		}
		if err != nil {
			inputs <- Input{Err: failure.Usage(err)}
		}
	}()
	return inputs
}
