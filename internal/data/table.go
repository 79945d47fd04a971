package data

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// readTable reads a table. With quotes it is CSV (RFC 4180). Without, each line is split at the
// separator, as in most TSV files.
func readTable(s Source) ([]record, error) {
	in, f, err := s.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &table{source: s, columns: s.Columns}
	if s.quotes() {
		err = t.readCSV(in)
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

// table is a table being read.
type table struct {
	source  Source
	columns []string // empty until the header is read
	records []record
	err     error
}

func (t *table) readCSV(in io.Reader) error {
	r := csv.NewReader(&skipBOM{r: in})
	r.Comma, _ = utf8.DecodeRuneInString(t.source.separator())
	r.FieldsPerRecord, r.ReuseRecord = -1, false
	for {
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if p := (*csv.ParseError)(nil); errors.As(err, &p) {
			err := fmt.Errorf("%s:%d:%d: %w", t.source.Path, p.Line, p.Column, p.Err)
			if errors.Is(p.Err, csv.ErrQuote) || errors.Is(p.Err, csv.ErrBareQuote) {
				err = fmt.Errorf("%w (with data.quotes: off, quotation marks are text)", err)
			}
			return err
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

// row adds the cells of a line: as the header if there are no columns yet, else as a record.
func (t *table) row(line int, cells []string) {
	if t.columns == nil {
		t.err = t.header(line, cells)
		return
	}
	r := record{line: line}
	if len(cells) != len(t.columns) {
		plural := "s"
		if len(cells) == 1 {
			plural = ""
		}
		r.err = fmt.Errorf("the line has %d cell%s, want %d (%s)%s",
			len(cells), plural, len(t.columns), strings.Join(t.columns, ", "), t.otherSeparator(cells))
	} else {
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
			return fmt.Errorf("%s:%d: the first line must name the columns, but the name of column %d, "+
				"%.40q, is empty, duplicate or broken; if the file has no such line, set data.columns",
				t.source.Path, line, i+1, name)
		}
		seen[name] = true
		t.columns = append(t.columns, name)
	}
	return nil
}

// otherSeparator returns a hint if another separator would give the right number of cells.
func (t *table) otherSeparator(cells []string) string {
	if len(cells) == 1 {
		for _, sep := range []string{"\t", ";", ",", "|"} {
			if sep != t.source.separator() && strings.Count(cells[0], sep) == len(t.columns)-1 {
				return fmt.Sprintf("; is the separator %q? set data.separator", sep)
			}
		}
	}
	return ""
}

// decoded converts text of an encoding to UTF-8.
func decoded(r io.Reader, encoding string) (io.Reader, error) {
	switch encoding {
	case "", UTF8:
		return r, nil
	case Latin1:
		return &latin1{r: r}, nil
	}
	return nil, fmt.Errorf("unknown encoding %q, want utf-8 or latin-1", encoding)
}

// latin1 converts Latin-1 to UTF-8: each byte is the code point of a character.
type latin1 struct {
	r    io.Reader
	buf  [2048]byte
	left []byte
}

func (l *latin1) Read(p []byte) (int, error) {
	if len(l.left) == 0 {
		n, err := l.r.Read(l.buf[:])
		if n == 0 {
			return 0, err
		}
		l.left = make([]byte, 0, 2*n)
		for _, b := range l.buf[:n] {
			l.left = utf8.AppendRune(l.left, rune(b))
		}
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

// skipBOM removes a byte order mark at the beginning.
type skipBOM struct {
	r       io.Reader
	started bool
}

func (s *skipBOM) Read(p []byte) (int, error) {
	if s.started {
		return s.r.Read(p)
	}
	s.started = true
	head := make([]byte, 3)
	n, err := io.ReadFull(s.r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	text := strings.TrimPrefix(string(head[:n]), "\ufeff")
	s.r = io.MultiReader(strings.NewReader(text), s.r)
	return s.r.Read(p)
}
