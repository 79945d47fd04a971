// Package data reads the rows of a task: JSON lines or separated values through templates into token ids. The mask is by construction: a row is
// the ids of its input, then the ids of its target without special tokens, then the end token, and the loss is on what
// comes after the input. Nothing is cut or dropped unless the task says so.
package data

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
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
	talk   string  // the conversation it is of: in a split, its rows stay together
}

// Set is the rows of one file.
type Set struct {
	Name    string
	Path    string
	Rows    []Row
	Dropped int // rows that were too long
	Cut     int // rows whose input was cut
}

// Source is a file of rows and how it is written.
type Source struct {
	Path string
	Reading
}

// Reading is how a file of rows is written, where its name does not say.
type Reading struct {
	Columns   []string // names of a table's columns; empty: its first line has them
	Separator string   // of a table's cells; empty: a comma, or a tab in .tsv files
	Quotes    string   // on: cells may be in quotation marks; off: those are text; auto: on, but not in .tsv files
	Encoding  string   // UTF8 if empty
}

// The encodings of files.
const (
	UTF8   = "utf-8"
	Latin1 = "latin-1"
)

// open gives the file's text as UTF-8.
func (s Source) open() (io.Reader, io.Closer, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("read rows: %w", err)
	}
	in, err := decoded(f, s.Encoding)
	if err != nil {
		f.Close()
	}
	return in, f, err
}

func (s Source) tabs() bool {
	ext := strings.ToLower(filepath.Ext(s.Path))
	return ext == ".tsv" || ext == ".tab"
}

func (s Source) separator() string {
	switch {
	case s.Separator != "":
		return s.Separator
	case s.tabs():
		return "\t"
	}
	return ","
}

func (s Source) quotes() bool {
	return s.Quotes == "on" || s.Quotes != "off" && !s.tabs()
}

// records reads the file's rows, in the format that its name's ending says.
func (s Source) records() (records []record, err error) {
	switch ext := strings.ToLower(filepath.Ext(s.Path)); ext {
	case ".jsonl", ".ndjson":
		records, err = readJSONL(s)
	case ".parquet":
		records, err = readParquet(s)
	case ".csv", ".tsv", ".tab":
		records, err = readTable(s)
	default:
		return nil, fmt.Errorf("%s: files of rows end in .jsonl, .csv, .tsv or .parquet, this one in %q", s.Path, ext)
	}
	if err == nil && len(records) == 0 {
		err = fmt.Errorf("%s: there is no row in it", s.Path)
	}
	return records, err
}

// maxErrors is how many broken rows one message lists.
const maxErrors = 20

// Load reads a file of rows. All its mistakes are reported at once, each with the line it stands on.
func Load(name string, from Source, f *Format, enc Encoder, o Options) (*Set, error) {
	path := from.Path
	records, err := from.records()
	if err != nil {
		return nil, err
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
	if f.messages != "" {
		return s.addConversation(r, f, enc, o)
	}
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
	said, err := f.Input.Fill(r.values)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Text, row.Input, err = Said(f.chat, said, enc); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if row.Target, err = f.target(target, enc); err != nil {
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

// Split takes about that share of the rows out of s, as a set of their own. A row goes where its text's hash says: equal texts stay
// together, and a row where it was when others are added.
func (s *Set) Split(name string, share float64) (*Set, error) {
	taken := &Set{Name: name, Path: s.Path}
	var kept []Row
	for _, r := range s.Rows {
		h := fnv.New64a()
		io.WriteString(h, cmp.Or(r.talk, r.Text))
		// FNV's high bits hardly differ between short texts; the mixing is MurmurHash3's.
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
		return nil, fmt.Errorf("%s: a share of %g leaves %d of its %d rows to learn from and %d to validate on", s.Path, share, len(kept), len(s.Rows), len(taken.Rows))
	}
	s.Rows = kept
	return taken, nil
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
