package infer

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"ptune/internal/data"
	"ptune/internal/failure"
)

// Input is a text to continue, or the fields of a row.
type Input struct {
	Text   string
	Fields data.Fields // nil: a text
	Place  string      // where it came from, for errors
}

// ErrNoText is wrapped by the error about a stream without a text.
var ErrNoText = errors.New("there is no text")

// EachText calls run with the texts, at most batch at a time.
func EachText(texts []string, batch int, run func([]Input) error) error {
	var all []Input
	for i, text := range texts {
		all = append(all, Input{Text: text, Place: fmt.Sprintf("text %d", i+1)})
	}
	for some := range slices.Chunk(all, batch) {
		if err := run(some); err != nil {
			return err
		}
	}
	return nil
}

// EachLine calls run with the lines of in or, if asked for, with the rows of JSON that they contain, at
// most batch at a time. name is for errors. An error of run is returned as it is; errors about the text
// are usage errors.
func EachLine(in io.Reader, name string, rows bool, batch int, run func([]Input) error) error {
	var inputs []Input
	var ran error // of run
	found := false
	err := data.Lines(in, name, func(n int, line string) error {
		found = true
		x := Input{Text: line, Place: fmt.Sprintf("%s:%d", name, n)}
		if rows {
			var err error
			if x.Fields, err = data.ParseObject([]byte(line)); err != nil {
				return fmt.Errorf("%s: %w", x.Place, err)
			}
		}
		if inputs = append(inputs, x); len(inputs) < batch {
			return nil
		}
		full := inputs
		inputs = nil
		ran = run(full)
		return ran
	})
	switch {
	case ran != nil:
		return ran
	case err != nil:
		return failure.Usage(err)
	case !found:
		return failure.Usage(fmt.Errorf("%w in %s", ErrNoText, name))
	case len(inputs) == 0:
		return nil
	}
	return run(inputs)
}
