package infer

import (
	"context"
	"errors"
	"fmt"
	"io"

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

// Lines returns the rows of rs as they come: with texts, its lines as texts. Reading ends with ctx. At most
// ahead rows are read that nobody has received.
func Lines(ctx context.Context, rs *data.Records, texts bool, ahead int) <-chan Input {
	inputs := make(chan Input, ahead)
	send := func(x Input) error {
		select {
		case inputs <- x:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() {
		defer close(inputs)
		err := rs.Each(func(r data.Record) error {
			x := Input{Place: r.Place, Blank: r.Blank, Fields: r.Fields}
			if texts {
				x.Text, x.Fields = r.Line(), nil
			}
			return send(x)
		})
		if texts && errors.Is(err, data.ErrNoRows) {
			err = fmt.Errorf("%w in %s", ErrNoText, rs.Name())
		}
		if err != nil {
			_ = send(Input{Err: failure.Usage(err)}) // fails if nobody waits
		}
	}()
	return inputs
}
