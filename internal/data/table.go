package data

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The values of Reading.Quotes beside Auto.
const (
	QuotesOn        = "on"        // quotation marks may enclose cells, and "" is one inside such a cell
	QuotesOff       = "off"       // quotation marks are text
	QuotesBackslash = "backslash" // as on, and \" and \\ inside such a cell are " and \
)

// table is a table being read.
type table struct {
	*reader
	text  string
	first int // number of the text's first line
}

// dialect is how a table's cells are written.
type dialect struct {
	separator string
	quotes    string
}

// readTable reads a table. If the usual dialect of such a file leaves rows that do not fit the
// header, and another one leaves none, the other one is read and a note says so.
func readTable(r *reader) error {
	if err := r.decode(true); err != nil {
		return err
	}
	t := table{reader: r, text: r.text, first: 1}
	if sep, rest, ok := separatorLine(t.text); ok {
		t.text, t.first = rest, 2
		if r.Separator == "" {
			r.Separator = sep
		}
	}
	dialects := t.dialects()
	best := dialects[0]
	if len(dialects) > 1 {
		if n := slices.IndexFunc(dialects, t.fits); n > 0 {
			best = dialects[n]
			if best.separator != dialects[0].separator {
				r.note("the cells are separated by %q (to be sure, set data.separator)", best.separator)
			}
			if best.quotes == QuotesBackslash {
				r.note(`quotation marks in cells are written \" (to be sure, set data.quotes: backslash)`)
			}
		}
	}
	r.Separator, r.Quotes = best.separator, best.quotes
	return t.read(best)
}

// excelSeparator is a first line that tells spreadsheets the separator.
var excelSeparator = regexp.MustCompile(`(?i)^"?sep=([^\r\n])"?\r?\n`)

func separatorLine(text string) (separator, rest string, ok bool) {
	m := excelSeparator.FindStringSubmatch(text)
	if m == nil {
		return "", text, false
	}
	return m[1], text[len(m[0]):], true
}

// usual returns the dialect of most files with such a name.
func (r *reader) usual() dialect {
	if r.tabs {
		return dialect{"\t", QuotesOff}
	}
	return dialect{",", QuotesOn}
}

// found returns what a task must say about the file: what differs from the usual.
func (r *reader) found() Reading {
	f := r.Reading
	if f.Separator == r.usual().separator {
		f.Separator = ""
	}
	if f.Quotes == r.usual().quotes || f.Quotes == Auto {
		f.Quotes = ""
	}
	if f.Encoding == UTF8 || f.Encoding == Auto {
		f.Encoding = ""
	}
	return f
}

// dialects returns the dialects that the table may have, the usual one first.
func (t *table) dialects() []dialect {
	seps := []string{t.Separator}
	if t.Separator == "" {
		usual := t.usual().separator
		seps = append([]string{usual}, slices.DeleteFunc(slices.Clone(separators),
			func(s string) bool { return s == usual || !strings.Contains(t.text, s) })...)
	}
	quotes := []string{t.Quotes}
	if t.Quotes == "" || t.Quotes == Auto {
		quotes = []string{t.usual().quotes}
		if quotes[0] == QuotesOn && strings.Contains(t.text, `\"`) {
			quotes = append(quotes, QuotesBackslash)
		}
	}
	var all []dialect
	for _, s := range seps {
		for _, q := range quotes {
			all = append(all, dialect{s, q})
		}
	}
	return all
}

// fits reports whether in a dialect all rows have as many cells as the header, more than one.
func (t *table) fits(d dialect) bool {
	width, fits := len(t.Columns), true
	d.rows(t.text, t.first, func(_ int, cells []string, err error) bool {
		if width == 0 {
			width = len(cells)
		}
		fits = err == nil && len(cells) == width && width > 1
		return fits && t.stopped() == nil
	})
	return fits
}

// read reads the rows in a dialect.
func (t *table) read(d dialect) error {
	t.names = t.Columns
	var failed error
	d.rows(t.text, t.first, func(line int, cells []string, err error) bool {
		if t.names == nil {
			if err != nil {
				failed = fmt.Errorf("%s:%d: the first line must name the columns: %w", t.name, line, err)
				return false
			}
			for _, c := range cells {
				t.names = append(t.names, strings.TrimSpace(c))
			}
			return true
		}
		x := record{line: line, err: err, cells: cells}
		if err == nil {
			x.fields, x.err = t.row(t.names, cells)
		}
		failed = t.add(x)
		return failed == nil
	})
	return failed
}

// row returns the fields of a row. A column without a name has no field, and a name of several
// columns cannot be used.
func (t *table) row(names, cells []string) (Fields, error) {
	if len(cells) != len(names) {
		return nil, fmt.Errorf("the line has %d %s, want %d (%s)%s", len(cells), plural(len(cells), "cell"),
			len(names), strings.Join(names, ", "), t.otherSeparator(names, cells))
	}
	if t.Columns == nil && len(cells) > 1 && slices.EqualFunc(names, cells,
		func(name, cell string) bool { return name == strings.TrimSpace(cell) }) {
		return nil, errRepeatedHeader
	}
	fields := Fields{}
	for i, c := range cells {
		if err := t.checkText(c); err != nil {
			return nil, err
		}
		name := names[i]
		if name == "" || !utf8.ValidString(name) {
			continue
		}
		f := Field{Text: c, place: i}
		if old, ok := fields[name]; ok {
			f = Field{Not: "the name of several columns; rename all but one", place: old.place}
		}
		fields[name] = f
	}
	return fields, nil
}

var errOpenQuote = errors.New("its quotation mark is not closed")

var errRepeatedHeader = errors.New("the line repeats the names of the columns")

// otherSeparator returns a hint if another separator would give the right number of cells.
func (t *table) otherSeparator(names, cells []string) string {
	if len(cells) == 1 {
		for _, sep := range separators {
			if sep != t.Separator && strings.Count(cells[0], sep) == len(names)-1 {
				return fmt.Sprintf("; is the separator %q? set data.separator", sep)
			}
		}
	}
	return ""
}

// rows calls f with the cells of each row, or with what is wrong in it, and the number of its first
// line, until f returns false. Blank lines are skipped. After a broken row, reading continues on the
// next line.
func (d dialect) rows(text string, line int, f func(line int, cells []string, err error) bool) {
	for text != "" {
		cells, rest, err := d.row(text)
		if (cells != nil || err != nil) && !f(line, cells, err) {
			return
		}
		line += strings.Count(text[:len(text)-len(rest)], "\n")
		text = rest
	}
}

// row splits off the first row of a text, as RFC 4180 does and with what is common beside it:
// quotation marks inside a cell that does not begin with one are text, and blanks may be around a
// cell's quotation marks.
func (d dialect) row(text string) (cells []string, rest string, err error) {
	line, rest, _ := strings.Cut(text, "\n")
	line = strings.TrimSuffix(line, "\r")
	if strings.TrimSpace(line) == "" {
		return nil, rest, nil
	}
	if d.quotes == QuotesOff || !strings.Contains(line, `"`) {
		return strings.Split(line, d.separator), rest, nil
	}
	for {
		cell, after, quoted, err := d.quoted(text)
		if err != nil {
			return nil, rest, fmt.Errorf("cell %d: %w (with data.quotes: off, quotation marks are text)",
				len(cells)+1, err)
		}
		if !quoted {
			cell, _, _ = strings.Cut(text, "\n")
			cell, _, _ = strings.Cut(cell, d.separator)
			after = text[len(cell):]
			if after == "" || after[0] == '\n' {
				cell = strings.TrimSuffix(cell, "\r")
			}
		}
		cells = append(cells, cell)
		next, more := strings.CutPrefix(after, d.separator)
		if !more {
			_, rest, _ = strings.Cut(after, "\n")
			return cells, rest, nil
		}
		text = next
	}
}

// quoted returns the cell at the beginning of a text if quotation marks enclose it, and the text
// after it. Blanks may be around the quotation marks, unless they separate cells.
func (d dialect) quoted(text string) (cell, after string, ok bool, err error) {
	blanks := strings.ReplaceAll(" \t", d.separator, "")
	s, ok := strings.CutPrefix(strings.TrimLeft(text, blanks), `"`)
	if !ok {
		return "", "", false, nil
	}
	plain := text[0] != '"' // if the cell is no quoted one, it is text that begins with a blank
	marks := `"`
	if d.quotes == QuotesBackslash {
		marks = `"\`
	}
	var b strings.Builder
	for {
		n := strings.IndexAny(s, marks)
		if n < 0 {
			return "", "", false, unless(plain, errOpenQuote)
		}
		b.WriteString(s[:n])
		mark := s[n]
		s = s[n+1:]
		if s != "" && (s[0] == '"' || mark == '\\' && s[0] == '\\') { // "" or \" or \\
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		if mark == '\\' {
			b.WriteByte('\\')
			continue
		}
		after = strings.TrimLeft(s, blanks)
		if end := strings.TrimPrefix(after, "\r"); end == "" || end[0] == '\n' {
			after = end
		} else if !strings.HasPrefix(after, d.separator) {
			c, _ := utf8.DecodeRuneInString(after)
			return "", "", false, unless(plain, fmt.Errorf("after its closing quotation mark comes %q, "+
				`want %q or the end of the line; inside a cell, " is written ""`, c, d.separator))
		}
		return strings.ReplaceAll(b.String(), "\r\n", "\n"), after, true, nil
	}
}

func unless(no bool, err error) error {
	if no {
		return nil
	}
	return err
}
