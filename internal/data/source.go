package data

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"ptune/internal/files"
)

// Stdin is the path of standard input.
const Stdin = "-"

// Source is a file of rows.
type Source struct {
	Path string // Stdin: standard input
	Reading
	Context context.Context // its end ends the reading, with its cause as the error; nil: nothing does
}

// stopped returns the cause of the end of the source's context, nil before it.
func (s Source) stopped() error {
	if s.Context == nil {
		return nil
	}
	return context.Cause(s.Context)
}

// Reading is how a file of rows is written. What is empty or auto is found out from the file.
type Reading struct {
	Columns   []string // names of a table's columns; empty: its first line has them
	Separator string   // between a table's cells
	Quotes    string   // of a table: Auto, QuotesOn, QuotesOff or QuotesBackslash
	Encoding  string   // Auto or a name of the WHATWG Encoding Standard
}

// Mistake is an error in a key of a Reading. Its text continues the key's name.
type Mistake struct {
	Key string
	Err error
}

// Mistakes returns what is wrong in the reading.
func (r Reading) Mistakes() []Mistake {
	var all []Mistake
	bad := func(key, format string, args ...any) {
		all = append(all, Mistake{key, fmt.Errorf(format, args...)})
	}
	quotes := []string{Auto, QuotesOn, QuotesOff, QuotesBackslash}
	if !slices.Contains(quotes, r.Quotes) {
		bad("quotes", "is %q, want %s", r.Quotes, strings.Join(quotes, ", "))
	}
	if err := checkEncoding(r.Encoding); err != nil {
		bad("encoding", "is an %w", err)
	}
	s := r.Separator
	if s != "" && (utf8.RuneCountInString(s) != 1 || strings.ContainsAny(s, "\"\r\n\ufeff\ufffd")) {
		bad("separator", "is %q, want one character, for example \"\\t\"", s)
	}
	for i, c := range r.Columns {
		if c == "" || slices.Contains(r.Columns[:i], c) {
			bad("columns", "has the name %q, want names that are not empty and differ", c)
		}
	}
	return all
}

// Auto is the value of a Reading that is found out.
const Auto = "auto"

// format is a format of rows.
type format struct {
	extensions []string // of the names of its files
	magic      string   // the first bytes of its files; empty: they vary
	read       func(*reader) error
}

// formats are the formats of rows. The first bytes of a file choose one, else its name.
var formats = []format{
	{extensions: []string{".jsonl", ".ndjson", ".json"}, read: readJSON},
	{extensions: []string{".csv", ".tsv", ".tab"}, read: readTable},
	{extensions: []string{".parquet"}, magic: "PAR1", read: readParquet},
}

// reader is a file of rows being read.
type reader struct {
	Reading        // what was found out replaces what was empty or auto
	name    string // for messages
	tabs    bool   // cells are separated by tabs unless Separator says otherwise
	text    string // the file's content
	each    func(record)
	stopped func() error // see Source.stopped
	rows    int
	names   []string // of a table's columns
	objects bool     // records of Parquet files have their object
	notes   []string // what was found out and may surprise
}

// record is one row: its fields, or the error in it.
type record struct {
	line   int
	fields Fields
	err    error
	cells  []string // of a table
	object string   // the row as JSON, of other files
}

// add passes a row on. It returns why no more rows are to be read.
func (r *reader) add(x record) error {
	if err := r.stopped(); err != nil {
		return err
	}
	r.rows++
	r.each(x)
	return nil
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, r.name+": "+fmt.Sprintf(format, args...))
}

// Name returns what messages call the source.
func (s Source) Name() string {
	if s.Path == Stdin {
		return "standard input"
	}
	return s.Path
}

// records calls each with each row of the file, and returns what was found out about the file.
func (s Source) records(each func(record)) (*reader, error) {
	text, err := s.content()
	if err != nil {
		return nil, err
	}
	return s.recordsIn(text, each)
}

// recordsIn is records of a content that has been read.
func (s Source) recordsIn(text string, each func(record)) (*reader, error) {
	r := &reader{Reading: s.Reading, name: s.Name(), text: text, each: each}
	return r, s.readInto(r)
}

// readInto reads the rows of r's text.
func (s Source) readInto(r *reader) error {
	r.stopped = s.stopped
	f, err := s.format(r)
	if err != nil {
		return err
	}
	if err := f.read(r); err != nil {
		return err
	}
	if r.rows == 0 {
		return fmt.Errorf("%s: the file has no rows", r.name)
	}
	return nil
}

// extension returns the extension of the file's name, without that of a compression.
func (s Source) extension() string {
	name := strings.ToLower(s.Path)
	for _, ext := range []string{".gz", ".gzip", ".zst", ".zstd"} {
		name = strings.TrimSuffix(name, ext)
	}
	return filepath.Ext(name)
}

// format returns the format of the file.
func (s Source) format(r *reader) (format, error) {
	if err := files.NoRows([]byte(r.text[:min(len(r.text), 256)])); err != nil {
		return format{}, fmt.Errorf("%s: %w", r.name, err)
	}
	ext := s.extension()
	if s.Path == Stdin {
		ext = ".csv"
		switch begin := strings.TrimLeft(r.text, "\ufeff \t\r\n"); {
		case strings.HasPrefix(begin, "{"), strings.HasPrefix(begin, "["):
			ext = ".jsonl"
		default:
			line, _, _ := strings.Cut(begin, "\n")
			r.tabs = strings.Contains(line, "\t")
		}
	}
	r.tabs = r.tabs || ext == ".tsv" || ext == ".tab"
	for _, f := range formats {
		if f.magic != "" && strings.HasPrefix(r.text, f.magic) {
			return f, nil
		}
	}
	for _, f := range formats {
		if slices.Contains(f.extensions, ext) {
			return f, nil
		}
	}
	return format{}, fmt.Errorf("%s: want a .jsonl, .json, .csv, .tsv or .parquet file, not %q",
		r.name, ext)
}

// maxContent is the largest size of a file in bytes, unpacked. A small packed file can unpack to one
// that fills the memory.
const maxContent = 16 << 30

// Endless reports whether in is a terminal or another device, whose end nobody should wait for.
func Endless(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

var stdin = sync.OnceValues(func() (string, error) {
	if Endless(os.Stdin) {
		return "", errors.New("there are no rows on standard input; pipe them into ptune")
	}
	return Source{Path: Stdin}.readAll(os.Stdin, 0)
})

// content returns the file's content, unpacked. Standard input is read once and remembered.
func (s Source) content() (string, error) {
	if s.Path == Stdin {
		return s.waitFor(stdin)
	}
	return s.waitFor(func() (string, error) { // a pipe may be waited for, too
		f, err := os.Open(s.Path)
		if err != nil {
			return "", fmt.Errorf("read rows: %w", err)
		}
		defer f.Close()
		size := int64(0)
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		return s.readAll(f, size)
	})
}

// waitFor returns what read returns, or an error as soon as the source's context ends. Then read is left
// alone with what it waits for.
func (s Source) waitFor(read func() (string, error)) (string, error) {
	if s.Context == nil {
		return read()
	}
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if err := s.stopped(); err != nil {
			return "", err
		}
		return r.text, r.err
	case <-s.Context.Done():
		return "", context.Cause(s.Context)
	}
}

// interruptible is a reader that ends with its source's context.
type interruptible struct {
	io.Reader
	source Source
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := r.source.stopped(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// readAll reads the content of in, of about size bytes, and unpacks it if its first bytes are those of
// gzip or zstd.
func (s Source) readAll(in io.Reader, size int64) (string, error) {
	name, in := s.Name(), io.Reader(interruptible{in, s})
	head := make([]byte, 4)
	n, err := io.ReadFull(in, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", fmt.Errorf("read rows: %w", err)
	}
	whole := io.MultiReader(strings.NewReader(string(head[:n])), in)
	unpack := ""
	switch {
	case n >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		unpack = "gzip"
		z, err := gzip.NewReader(whole)
		if err != nil {
			return "", fmt.Errorf("unpack %s with gzip: %w", name, err)
		}
		whole = z
	case n == 4 && string(head) == "\x28\xb5\x2f\xfd":
		unpack = "zstd"
		z, err := zstd.NewReader(whole, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return "", fmt.Errorf("unpack %s with zstd: %w", name, err)
		}
		defer z.Close()
		whole = z
	}
	var b strings.Builder
	b.Grow(int(min(size, maxContent)) + 1)
	if _, err = io.Copy(&b, io.LimitReader(whole, maxContent+1)); err != nil {
		if unpack != "" {
			return "", fmt.Errorf("unpack %s with %s: %w", name, unpack, err)
		}
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if b.Len() > maxContent {
		return "", fmt.Errorf("%s: the rows have more than %d GB", name, maxContent>>30)
	}
	return b.String(), nil
}
