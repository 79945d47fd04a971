package data

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Record is a row as it was read. Records.Write writes it with values added.
type Record struct {
	Place  string // where it came from, for errors
	Fields Fields
	Blank  bool // a blank line of plain text

	cells []string // of a table
	text  string   // a JSON object, or a line of plain text
}

// Records are rows that are written again, with values added, in the format they were read in: a table as
// a table, a JSON array as an array, lines of JSON and rows of Parquet as lines of JSON. Of a line of
// plain text, the values come first and the text last, separated by tabs.
type Records struct {
	All    []Record // all rows; nil: Each reads them as they come
	Notes  []string // what was found out about the file and may surprise
	Errors error    // a line for each mistake in All

	name    string
	lines   io.Reader // what Each reads
	field   string    // of lines of plain text
	layout  layout
	dialect dialect
	header  []string // of a table; nil: it has none
	columns []string // of a table that Each reads; nil: its first line has them
	written bool     // a row
}

// ErrNoRows is wrapped by the error of Each about a stream without rows.
var ErrNoRows = errors.New("there are no rows")

// TextLines returns the lines of a stream as rows of one field. name is for errors.
func TextLines(in io.Reader, name, field string) *Records {
	return &Records{name: name, lines: in, field: field, layout: asLines}
}

// ObjectLines returns the JSON objects of a stream, one a line. name is for errors.
func ObjectLines(in io.Reader, name string) *Records { return &Records{name: name, lines: in} }

// Name returns what messages call the rows' source.
func (rs *Records) Name() string { return rs.name }

// Line returns a row's line of plain text, or its JSON object.
func (r Record) Line() string { return r.text }

// layout is how records are written.
type layout int

const (
	asObjects layout = iota
	asArray
	asTable
	asLines
)

// Records reads the rows of the file, or of in if the path is Stdin. Lines of JSON and of plain text in in
// are left to Each. Plain text is what a file called .txt has, and in if it does not begin like JSON and its
// first line does not name the template's fields, of which there must be one.
func (s Source) Records(in io.Reader, fields []string) (*Records, error) {
	rs := &Records{name: s.Name()}
	if s.Path == Stdin {
		b := bufio.NewReader(in)
		first, err := s.waitFor(func() (string, error) { return b.ReadString('\n') })
		if s.stopped() != nil {
			return nil, s.stopped()
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read %s: %w", rs.name, err)
		}
		in = io.MultiReader(strings.NewReader(first), b)
		d, isTable := s.tableOf(first, fields)
		whole := isWhole(first)
		switch begin := strings.TrimLeft(first, "\ufeff \t\r\n"); {
		case strings.HasPrefix(begin, "{"):
			rs.lines = in
			return rs, nil
		case first == "":
			return nil, fmt.Errorf("%s: %w", rs.name, ErrNoRows)
		case !whole && isTable && s.isUTF8(first):
			rs.lines, rs.layout, rs.dialect, rs.columns = in, asTable, d, s.Columns
			return rs, nil
		case !whole && !isTable:
			return rs, rs.plain(in, fields)
		}
		text, err := s.waitFor(func() (string, error) { return s.readAll(in, 0) })
		if err != nil {
			return nil, err
		}
		return rs, rs.read(s, text)
	}
	if s.extension() == ".txt" {
		text, err := s.content()
		if err != nil {
			return nil, err
		}
		if err := rs.plain(strings.NewReader(text), fields); err != nil {
			return nil, err
		}
		err = rs.Each(func(r Record) error {
			rs.All = append(rs.All, r)
			return nil
		})
		return rs, err
	}
	text, err := s.content()
	if err != nil {
		return nil, err
	}
	return rs, rs.read(s, text)
}

// isWhole reports whether a text with this first line cannot be read line by line, but must be there whole:
// Parquet, packed rows, UTF-16, a JSON array, a table whose first line names the separator or whose lines
// end with CR alone.
func isWhole(first string) bool {
	for _, magic := range []string{"PAR1", "\x1f\x8b", "\x28\xb5\x2f\xfd", "\xff\xfe", "\xfe\xff"} {
		if strings.HasPrefix(first, magic) {
			return true
		}
	}
	first = strings.TrimSpace(strings.TrimPrefix(first, "\ufeff"))
	if rest, ok := strings.CutPrefix(first, "["); ok {
		rest = strings.TrimSpace(rest)
		return rest == "" || rest[0] == '{' || rest[0] == ']'
	}
	return strings.HasPrefix(strings.ToLower(first), "sep=") || strings.Contains(first, "\r")
}

// isUTF8 reports whether a table with this first line is taken for UTF-8.
func (s Source) isUTF8(first string) bool {
	return utf8.ValidString(first) && (s.Encoding == "" || s.Encoding == Auto || s.Encoding == UTF8)
}

// tableOf reports whether a text with this first line is a table with the template's fields, and in which
// dialect.
func (s Source) tableOf(first string, fields []string) (d dialect, ok bool) {
	first = strings.TrimSpace(strings.TrimPrefix(first, "\ufeff"))
	for _, sep := range append([]string{s.Separator}, separators...) {
		if sep == "" {
			continue
		}
		d := dialect{sep, s.Quotes}
		if d.quotes == "" || d.quotes == Auto {
			d.quotes = (&reader{tabs: sep == "\t"}).usual().quotes
		}
		cells, _, err := d.row(first)
		if err != nil {
			continue
		}
		for i, c := range cells {
			cells[i] = strings.TrimSpace(c)
		}
		names := s.Columns
		if names == nil {
			names = cells
		}
		if len(cells) == len(names) && !slices.ContainsFunc(fields, func(f string) bool {
			return !slices.Contains(names, f)
		}) {
			return d, true
		}
	}
	return d, false
}

// plain makes Each read lines of plain text.
func (rs *Records) plain(in io.Reader, fields []string) error {
	if len(fields) != 1 {
		return fmt.Errorf("%s: a line of text cannot fill the template's fields %s: want rows of JSON, or a "+
			"table whose first line names them", rs.name, strings.Join(fields, ", "))
	}
	rs.lines, rs.field, rs.layout = in, fields[0], asLines
	return nil
}

// read reads all rows.
func (rs *Records) read(s Source, text string) error {
	r := &reader{Reading: s.Reading, name: rs.name, text: text, objects: true}
	var wrong Mistakes
	r.each = func(x record) {
		place := fmt.Sprintf("%s:%d", rs.name, x.line)
		if x.err != nil {
			wrong.Add(place, x.err)
		}
		rs.All = append(rs.All, Record{Place: place, Fields: x.fields, cells: x.cells, text: x.object})
	}
	if err := s.readInto(r); err != nil {
		return err
	}
	rs.Notes, rs.Errors = r.notes, wrong.Err()
	switch {
	case rs.All[0].cells != nil:
		rs.layout, rs.dialect = asTable, dialect{r.Separator, r.Quotes}
		if s.Columns == nil {
			rs.header = r.names
		}
	case strings.HasPrefix(strings.TrimLeft(r.text, " \t\r\n"), "["):
		rs.layout = asArray
	}
	return nil
}

// Each calls f with the rows as they come. An error ends it.
func (rs *Records) Each(f func(Record) error) error {
	if rs.layout == asTable {
		return rs.eachOfTable(f)
	}
	found := false
	err := AllLines(rs.lines, rs.name, func(n int, line string) error {
		found = true
		r := Record{Place: fmt.Sprintf("%s:%d", rs.name, n), text: line}
		blank := strings.TrimSpace(line) == ""
		if rs.layout == asLines {
			r.Blank, r.Fields = blank, Texts(map[string]string{rs.field: line})
			return f(r)
		}
		if blank {
			return nil
		}
		var err error
		if r.Fields, err = ParseObject([]byte(line)); err != nil {
			return fmt.Errorf("%s: %w", r.Place, err)
		}
		return f(r)
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: %w", rs.name, ErrNoRows)
	}
	return err
}

// eachOfTable is Each of a table.
func (rs *Records) eachOfTable(f func(Record) error) error {
	t := table{reader: &reader{name: rs.name, names: rs.columns, Reading: Reading{
		Columns: rs.columns, Separator: rs.dialect.separator, Quotes: rs.dialect.quotes, Encoding: UTF8,
	}}}
	var text []byte // a row that may have more lines
	first := 0      // its first line
	row := func() error {
		cells, _, err := rs.dialect.row(string(text))
		switch {
		case errors.Is(err, errOpenQuote) && len(text) < maxLine:
			return err
		case err == nil && t.names == nil && cells != nil:
			for _, c := range cells {
				t.names = append(t.names, strings.TrimSpace(c))
			}
			rs.header = t.names
		case err == nil && cells != nil:
			r := Record{Place: fmt.Sprintf("%s:%d", rs.name, first), cells: cells}
			if r.Fields, err = t.row(t.names, cells); err == nil {
				t.rows++
				text = nil
				return f(r)
			}
		}
		if text = nil; err != nil {
			return fmt.Errorf("%s:%d: %w", rs.name, first, err)
		}
		return nil
	}
	err := AllLines(rs.lines, rs.name, func(n int, line string) error {
		if text == nil {
			first = n
		}
		text = append(append(text, strings.TrimRight(line, "\x1a")...), '\n')
		if n > first && len(text) < maxLine && !strings.Contains(line, `"`) { // the quotation stays open
			return nil
		}
		if err := row(); text == nil {
			return err
		}
		return nil // the quotation is open
	})
	if err == nil && text != nil {
		err = fmt.Errorf("%s:%d: %w", rs.name, first, row())
	}
	if err == nil && t.rows == 0 {
		err = fmt.Errorf("%s: the file has no rows", rs.name)
	}
	return err
}

// Value is a value to add to a row.
type Value struct {
	Name, Text string
	Number     bool // the text is a number of JSON
}

// CheckNames returns an error if a row has a field or column of one of these names.
func (rs *Records) CheckNames(r Record, names []string) error {
	if rs.layout == asLines {
		return nil
	}
	for _, name := range names {
		if _, ok := r.Fields[name]; ok {
			return fmt.Errorf("the row has a field %q already, and it would be added; rename it", name)
		}
	}
	return nil
}

// Write writes a row with values added. The values of all rows have the same names. Those of a blank line
// are not written.
func (rs *Records) Write(w io.Writer, r Record, values []Value) error {
	first := !rs.written
	rs.written = true
	var b strings.Builder
	switch rs.layout {
	case asLines:
		if !r.Blank {
			var cells []string
			for _, v := range values {
				cells = append(cells, v.Text)
			}
			line, err := dialect{"\t", QuotesOff}.line(cells)
			if err != nil {
				return err
			}
			b.WriteString(line + "\t" + r.text)
		}
	case asTable:
		names, cells := slices.Clone(rs.header), slices.Clone(r.cells)
		for _, v := range values {
			names, cells = append(names, v.Name), append(cells, v.Text)
		}
		if first && rs.header != nil {
			line, err := rs.dialect.line(names)
			if err != nil {
				return err
			}
			b.WriteString(line + "\n")
		}
		line, err := rs.dialect.line(cells)
		if err != nil {
			return err
		}
		b.WriteString(line)
	default:
		if rs.layout == asArray && first {
			b.WriteString("[\n")
		} else if rs.layout == asArray {
			b.WriteString(",\n")
		}
		object, err := withValues(r.text, values)
		if err != nil {
			return err
		}
		b.WriteString(object)
	}
	if rs.layout != asArray {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// End writes what follows the last row.
func (rs *Records) End(w io.Writer) error {
	if rs.layout != asArray {
		return nil
	}
	_, err := io.WriteString(w, "\n]\n")
	return err
}

// withValues returns a JSON object with fields added at its end.
func withValues(object string, values []Value) (string, error) {
	object = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(object), "}"))
	for _, v := range values {
		name, err := jsonOf(v.Name)
		if err != nil {
			return "", err
		}
		text := v.Text
		if !v.Number {
			if text, err = jsonOf(text); err != nil {
				return "", err
			}
		}
		if object != "{" {
			object += ","
		}
		object += name + ":" + text
	}
	return object + "}", nil
}

// jsonOf returns a value as JSON, with <, > and & as they are.
func jsonOf(value any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// line returns cells as a line that row reads.
func (d dialect) line(cells []string) (string, error) {
	escape := strings.NewReplacer(`"`, `""`)
	if d.quotes == QuotesBackslash {
		escape = strings.NewReplacer(`"`, `\"`, `\`, `\\`)
	}
	all := make([]string, len(cells))
	for i, c := range cells {
		switch special := strings.ContainsAny(c, "\r\n"+d.separator); {
		case d.quotes == QuotesOff && special:
			return "", fmt.Errorf("a table without quotation marks cannot have the cell %s, "+
				"which contains the separator or a line break", shown(c))
		case d.quotes != QuotesOff && (special || strings.Contains(c, `"`)):
			c = `"` + escape.Replace(c) + `"`
		}
		all[i] = c
	}
	return strings.Join(all, d.separator), nil
}

// EncodeInput returns the tokens of a row's input. One of more than most tokens is an error, or with cut
// its longest field is cut.
func (f *Format) EncodeInput(fields Fields, enc Encoder, most int, cut bool) ([]int32, error) {
	text, err := f.Input.Fill(fields)
	if err != nil {
		return nil, err
	}
	_, ids, err := EncodeInput(f.chat, text, enc)
	if err != nil || len(ids) <= most {
		return ids, err
	}
	if cut {
		_, ids, err = f.cut(fields, enc, most)
		return ids, err
	}
	return nil, fmt.Errorf("the input has %d tokens, want at most %d", len(ids), most)
}
