package data

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// readTable reads a file of separated values: with quotes a CSV file (RFC 4180), without them lines cut at the separator, as most TSV
// files are.
func readTable(s Source) ([]record, error) {
	in, f, err := s.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &table{source: s, columns: s.Columns}
	if s.quotes() {
		err = t.quoted(in)
	} else {
		err = Lines(in, s.Path, func(n int, line string) error {
			t.row(n, strings.Split(line, s.separator()))
			return t.err
		})
	}
	if err != nil {
		return nil, err
	}
	return t.records, nil
}

// table is a file of separated values under way.
type table struct {
	source  Source
	columns []string // empty until the header is read
	records []record
	err     error
}

func (t *table) quoted(in io.Reader) error {
	r := csv.NewReader(&withoutMark{r: in})
	r.Comma, _ = utf8.DecodeRuneInString(t.source.separator())
	r.FieldsPerRecord, r.ReuseRecord = -1, false
	for {
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if p := (*csv.ParseError)(nil); errors.As(err, &p) {
			return withQuotesHint(fmt.Errorf("%s:%d:%d: %w", t.source.Path, p.Line, p.Column, p.Err), p.Err)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", t.source.Path, err)
		}
		line, _ := r.FieldPos(0)
		if t.row(line, cells); t.err != nil {
			return t.err
		}
	}
}

func withQuotesHint(err, what error) error {
	if errors.Is(what, csv.ErrQuote) || errors.Is(what, csv.ErrBareQuote) {
		return fmt.Errorf("%w (data.quotes: off takes quotation marks as text)", err)
	}
	return err
}

// row takes a line's cells: the header, if it is still to come, or a row.
func (t *table) row(line int, cells []string) {
	if t.columns == nil {
		t.err = t.header(line, cells)
		return
	}
	r := record{line: line}
	switch {
	case len(cells) != len(t.columns):
		r.err = fmt.Errorf("the line has %s, the file %d columns (%s)%s", counted(len(cells), "cell"), len(t.columns), strings.Join(t.columns, ", "), t.otherSeparator(cells))
	default:
		r.values = map[string]string{}
		for i, c := range cells {
			if !utf8.ValidString(c) {
				r.err = errNotUTF8
			}
			r.values[t.columns[i]] = c
		}
	}
	t.records = append(t.records, r)
}

func (t *table) header(line int, cells []string) error {
	seen := map[string]bool{}
	for i, c := range cells {
		name := strings.TrimSpace(c)
		if name == "" || seen[name] || !utf8.ValidString(name) || len(name) > 200 {
			return fmt.Errorf("%s:%d: the first line names the columns, but column %d is called %.40q, which is no name of its own; data.columns names those of a file without such a line", t.source.Path, line, i+1, name)
		}
		seen[name] = true
		t.columns = append(t.columns, name)
	}
	return nil
}

// otherSeparator says which separator the line seems to have.
func (t *table) otherSeparator(cells []string) string {
	if len(cells) == 1 {
		for _, sep := range []string{"\t", ";", ",", "|"} {
			if sep != t.source.separator() && strings.Count(cells[0], sep) == len(t.columns)-1 {
				return fmt.Sprintf("; it seems to be separated by %q: data.separator", sep)
			}
		}
	}
	return ""
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// decoded reads text of that encoding as UTF-8.
func decoded(r io.Reader, encoding string) (io.Reader, error) {
	switch encoding {
	case "", UTF8:
		return r, nil
	case Latin1:
		return &latin1{r: r}, nil
	}
	return nil, fmt.Errorf("there is no encoding %q", encoding)
}

// latin1 turns bytes into the characters of the same numbers.
type latin1 struct {
	r    io.Reader
	room [2048]byte
	left []byte
}

func (l *latin1) Read(p []byte) (int, error) {
	if len(l.left) == 0 {
		n, err := l.r.Read(l.room[:])
		if n == 0 {
			return 0, err
		}
		l.left = make([]byte, 0, 2*n)
		for _, b := range l.room[:n] {
			l.left = utf8.AppendRune(l.left, rune(b))
		}
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

// withoutMark takes a byte order mark off the front.
type withoutMark struct {
	r     io.Reader
	begun bool
}

func (w *withoutMark) Read(p []byte) (int, error) {
	if w.begun {
		return w.r.Read(p)
	}
	w.begun = true
	head := make([]byte, 3)
	n, err := io.ReadFull(w.r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	w.r = io.MultiReader(strings.NewReader(strings.TrimPrefix(string(head[:n]), "\ufeff")), w.r)
	return w.r.Read(p)
}
