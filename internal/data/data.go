// Package data reads the rows of a task, JSON lines or tables, and turns them into token ids
// through templates. A row is the ids of its input, then the ids of its target without special
// tokens, then the end token. The loss is on everything after the input. Rows that are too long are
// an error unless the task says to cut or drop them.
package data

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
)

// What to do with a row of more than MaxTokens tokens.
const (
	TooLongIsError  = "error"
	TooLongDrop     = "drop"
	TooLongCutInput = "cut_input" // cut the end of the input's longest field; keep the template whole
)

// Options are the limits and the end token of a set.
type Options struct {
	MaxTokens int    // input, target and end token together
	Limit     string // where MaxTokens comes from, for errors: "data.max_tokens is 512"
	OnTooLong string
	EOS       int32
}

// Row is one example.
type Row struct {
	Line   int
	Input  []int32 // with BOS, if the tokenizer adds one
	Target []int32 // with the end token
	Label  int     // index in Format.Labels; -1 without labels
	Text   string  // the input as text

	conversation string // the conversation it comes from; Split keeps the rows of one together
}

// Set is the rows of one file.
type Set struct {
	Name    string
	Path    string
	Rows    []Row
	Dropped int // number of rows that were too long
	Cut     int // number of rows whose input was cut

	notes []string // what was found out about the file
}

// Load reads a file of rows. Its error has a line for each mistake, with the number of the first line
// that has it.
func Load(name string, from Source, f *Format, enc Encoder, o Options) (*Set, error) {
	s := &Set{Name: name, Path: from.Path}
	var wrong Mistakes
	r, err := from.records(func(x record) {
		if x.err == nil {
			x.err = s.add(x, f, enc, o)
		}
		if x.err != nil {
			wrong.Add(fmt.Sprintf("%s:%d", from.Name(), x.line), x.err)
		}
	})
	if err == nil {
		err = wrong.Err()
	}
	if err != nil {
		return nil, err
	}
	if len(s.Rows) == 0 {
		return nil, fmt.Errorf("%s: all %d rows are too long (%s), so none is left",
			from.Name(), s.Dropped, o.Limit)
	}
	s.notes = r.notes
	return s, nil
}

// add appends a record as a row.
func (s *Set) add(r record, f *Format, enc Encoder, o Options) error {
	if f.messages != "" {
		return s.addConversation(r, f, enc, o)
	}
	row := Row{Line: r.line, Label: -1}
	values := r.fields
	if len(f.Labels) > 0 {
		value, err := values.text(f.field)
		if err != nil {
			return err
		}
		i, err := f.label(value)
		if err != nil {
			return err
		}
		row.Label = i
		values = Fields{f.field: {Text: f.Labels[i].Name}}
	}
	target, err := f.Target.Fill(values)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	input, err := f.Input.Fill(r.fields)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Text, row.Input, err = EncodeInput(f.chat, input, enc); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Target, err = f.target(target, enc); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if len(row.Target) == 0 {
		return errors.New("the target has no token")
	}
	row.Target = append(row.Target, o.EOS)
	if n := len(row.Input) + len(row.Target); n > o.MaxTokens {
		switch o.OnTooLong {
		case TooLongDrop:
			s.Dropped++
			return nil
		case TooLongCutInput:
			most := o.MaxTokens - len(row.Target)
			if row.Text, row.Input, err = f.cut(r.fields, enc, most); err != nil {
				return err
			}
			s.Cut++
		default:
			return fmt.Errorf("the row has %d tokens, but %s "+
				"(data.on_too_long can be drop or cut_input)", n, o.Limit)
		}
	}
	s.Rows = append(s.Rows, row)
	return nil
}

// ErrSplit is the error of a split that leaves no rows for training or for validation.
var ErrSplit = errors.New("want some in both")

// Split moves about that share of the rows of s to a new set. The hash of a row's text decides, so
// equal texts end up in the same set, and adding rows does not move others.
func (s *Set) Split(name string, share float64) (*Set, error) {
	taken := &Set{Name: name, Path: s.Path}
	var kept []Row
	for _, r := range s.Rows {
		h := fnv.New64a()
		io.WriteString(h, cmp.Or(r.conversation, r.Text))
		// The high bits of FNV hardly differ for short texts. MurmurHash3's finalizer mixes them.
		x := h.Sum64()
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		if x ^= x >> 33; float64(x>>11)/(1<<53) < share {
			taken.Rows = append(taken.Rows, r)
		} else {
			kept = append(kept, r)
		}
	}
	if len(kept) == 0 || len(taken.Rows) == 0 {
		return nil, fmt.Errorf("%s: a share of %g splits its %d rows into %d for training and "+
			"%d for validation; %w",
			s.File(), share, len(s.Rows), len(kept), len(taken.Rows), ErrSplit)
	}
	s.Rows = kept
	return taken, nil
}

// File returns what messages call the set's file.
func (s *Set) File() string { return Source{Path: s.Path}.Name() }

// Notes returns sentences about the file: what was found out about its encoding and its cells, and
// how many rows were dropped or cut.
func (s *Set) Notes() []string {
	all := len(s.Rows) + s.Dropped
	notes := slices.Clone(s.notes)
	switch {
	case s.Dropped > 0:
		notes = append(notes, fmt.Sprintf("%s: %d of %d rows were too long and were dropped",
			s.File(), s.Dropped, all))
	case s.Cut > 0:
		notes = append(notes, fmt.Sprintf(
			"%s: %d of %d rows were too long and had the end of their longest field cut",
			s.File(), s.Cut, all))
	}
	return notes
}

// Order returns the order of n rows in an epoch: the order of the file, or a shuffle that depends
// only on the seed and the epoch.
func Order(n int, shuffle bool, seed uint64, epoch int) []int {
	if !shuffle {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		return order
	}
	const stream = 0x6f72646572 // "order": a random stream of its own
	return rand.New(rand.NewPCG(seed, stream+uint64(epoch)<<40)).Perm(n)
}
