// Package data reads the rows of a task: JSON lines through templates into token ids. The mask is by construction: a row is
// the ids of its input, then the ids of its target without special tokens, then the end token, and the loss is on what
// comes after the input. Nothing is cut or dropped unless the task says so.
package data

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
)

// What is done with a row of more than MaxTokens.
const (
	TooLongIsError  = "error"
	TooLongDrop     = "drop"
	TooLongCutInput = "cut_input" // the end of the longest field of the input goes; the template stays whole
)

// Options are the limits and the end token of a set.
type Options struct {
	MaxTokens int    // of input, target and end token
	Limit     string // where that comes from, for messages: "data.max_tokens is 512"
	OnTooLong string
	EOS       int32
}

// Row is one example.
type Row struct {
	Line   int
	Input  []int32 // with BOS, if the tokenizer adds one
	Target []int32 // with the end token
	Label  int     // in Format.Labels; -1 without labels
	Text   string  // the input as text
}

// Set is the rows of one file.
type Set struct {
	Name    string
	Path    string
	Rows    []Row
	Dropped int // rows that were too long
	Cut     int // rows whose input was cut
}

// maxErrors is how many broken rows one message lists.
const maxErrors = 20

// Load reads a file of rows. All its mistakes are reported at once, each with the line it stands on.
func Load(name, path string, f *Format, enc Encoder, o Options) (*Set, error) {
	var records []record
	var err error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".jsonl", ".ndjson":
		records, err = readJSONL(path)
	default:
		return nil, fmt.Errorf("%s: files of rows end in .jsonl, this one in %q", path, ext)
	}
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("%s: there is no row in it", path)
	}
	s := &Set{Name: name, Path: path}
	var errs []error
	for _, r := range records {
		if r.err == nil {
			r.err = s.add(r, f, enc, o)
		}
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, r.line, r.err))
		}
	}
	if n := len(errs); n > maxErrors {
		errs = append(errs[:maxErrors], fmt.Errorf("and %d more rows with mistakes", n-maxErrors))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if len(s.Rows) == 0 {
		return nil, fmt.Errorf("%s: all %d rows are too long (%s) and were dropped", path, s.Dropped, o.Limit)
	}
	return s, nil
}

// add makes a row of a record.
func (s *Set) add(r record, f *Format, enc Encoder, o Options) error {
	row := Row{Line: r.line, Label: -1}
	values := r.values
	if len(f.Labels) > 0 {
		value, ok := values[f.field]
		if !ok {
			return fmt.Errorf("there is no field %q; the row has %s", f.field, list(values))
		}
		i, err := f.label(value)
		if err != nil {
			return err
		}
		row.Label = i
		values = map[string]string{f.field: f.Labels[i].Name}
	}
	target, err := f.Target.Fill(values)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if row.Text, err = f.Input.Fill(r.values); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Input, err = enc.EncodeInput(row.Text); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Target, err = enc.Encode(target); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if len(row.Target) == 0 {
		return errors.New("the target has no token, so there is nothing to learn from the row")
	}
	row.Target = append(row.Target, o.EOS)
	if n := len(row.Input) + len(row.Target); n > o.MaxTokens {
		switch o.OnTooLong {
		case TooLongDrop:
			s.Dropped++
			return nil
		case TooLongCutInput:
			if row.Text, row.Input, err = f.cut(r.values, enc, o.MaxTokens-len(row.Target)); err != nil {
				return err
			}
			s.Cut++
		default:
			return fmt.Errorf("the row is %d tokens, but %s (data.on_too_long: drop or cut_input would go on)", n, o.Limit)
		}
	}
	s.Rows = append(s.Rows, row)
	return nil
}

// Shortened says what was dropped or cut, empty if nothing was.
func (s *Set) Shortened() string {
	all := len(s.Rows) + s.Dropped
	switch {
	case s.Dropped > 0:
		return fmt.Sprintf("%s: %d of %d rows were too long and were dropped", s.Path, s.Dropped, all)
	case s.Cut > 0:
		return fmt.Sprintf("%s: %d of %d rows were too long and had the end of their longest field cut", s.Path, s.Cut, all)
	}
	return ""
}

// Order is the order of n rows in an epoch: that of the file, or a shuffle that depends on the seed and the epoch alone.
func Order(n int, shuffle bool, seed uint64, epoch int) []int {
	if !shuffle {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		return order
	}
	const stream = 0x6f72646572 // "order": draws of other purposes come from other streams
	return rand.New(rand.NewPCG(seed, stream+uint64(epoch)<<40)).Perm(n)
}
