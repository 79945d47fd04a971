package data_test

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ptune/internal/data"
)

// FuzzATableIsReadAsTheLibraryWritesAndReadsIt compares tables with encoding/csv. The text a is one
// table, the cells a and b are another.
func FuzzATableIsReadAsTheLibraryWritesAndReadsIt(f *testing.F) {
	f.Add("a,b\n\"x, \"\"y\"\"\r\nz\",1\n", "A\nB", uint8(0))
	f.Add("a,b\n5 \"inch\" pipe,\"B\"\n \"x\" ,y\n", "", uint8(2))
	f.Add("\"a\",\"\"\r\n\"\",b", "x, \"y\"", uint8(1))
	f.Add("naïve “word”", "5 €", uint8(7))
	f.Add(`\"`, ";|\t,", uint8(3))
	f.Fuzz(func(t *testing.T, a, b string, kind uint8) {
		readAsTheLibraryReadsIt(t, a)
		readBack(t, a, b, kind)
	})
}

// readAsTheLibraryReadsIt checks that a table that encoding/csv reads as RFC 4180 has the same cells.
func readAsTheLibraryReadsIt(t *testing.T, text string) {
	if !utf8.ValidString(text) || strings.ContainsAny(text, "\x1a\ufeff\ufffd\x00") ||
		strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r") {
		return // read in another way on purpose
	}
	lib := csv.NewReader(strings.NewReader("a,b\n" + text))
	var want [][]string
	for {
		cells, err := lib.Read()
		if err == io.EOF {
			break
		}
		if err != nil || len(cells) != 2 {
			return
		}
		if strings.TrimSpace(strings.Join(cells, "")) == "" {
			return // the line can be blank
		}
		want = append(want, cells)
	}
	from := data.Source{Path: "x.csv", Reading: data.Reading{Columns: []string{"a", "b"}, Separator: ",", Quotes: "on"}}
	rows, _, err := data.OnlyRead(from, "a,b\n"+text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	for i, row := range rows {
		if got := []string{row.Fields["a"].Text, row.Fields["b"].Text}; i >= len(want) ||
			row.Err != nil || !slices.Equal(got, want[i]) {
			// The library keeps blanks before a quotation mark, which then is an error for it.
			t.Fatalf("%q: row %d is %q (%v), want %q", text, i, got, row.Err, want)
		}
	}
	if len(rows) != len(want) {
		t.Fatalf("%q: %d rows, want %d", text, len(rows), len(want))
	}
}

// readBack checks that a table that encoding/csv writes has the same cells, in each separator and in
// encodings that are found out.
func readBack(t *testing.T, a, b string, kind uint8) {
	clean := func(s string) bool {
		return utf8.ValidString(s) && !strings.ContainsAny(s, "\r\x1a\ufeff\ufffd\x00")
	}
	if !clean(a) || !clean(b) || strings.TrimSpace(a+b) == "" || a == "a" && b == "b" {
		return
	}
	var s strings.Builder
	w := csv.NewWriter(&s)
	w.Comma = []rune(",;\t|")[kind%4]
	for _, row := range [][]string{{"a", "b"}, {a, b}, {a, "x"}} {
		if w.Write(row) != nil {
			return
		}
	}
	w.Flush()
	text, from := s.String(), data.Source{Path: "x.csv"}
	switch kind / 4 % 4 {
	case 1:
		text = "\xff\xfe" + encoded(t, "utf-16le", text)
	case 2:
		text = "\ufeff" + strings.ReplaceAll(text, "\n", "\r\n")
	case 3:
		text = zstandard(t, text)
		var err error
		if text, err = data.OnlyUnpack(text); err != nil {
			t.Fatal(err)
		}
	}
	rows, _, err := data.OnlyRead(from, text)
	if err != nil || len(rows) != 2 || rows[0].Fields["a"].Text != a || rows[0].Fields["b"].Text != b {
		t.Fatalf("%q: rows are %+v (%v), want %q and %q", text, rows, err, a, b)
	}
}

// FuzzAContentIsReadOrRefused checks that a content in any format and reading is read or refused, and
// that each row has fields or an error.
func FuzzAContentIsReadOrRefused(f *testing.F) {
	for _, text := range []string{
		"text,label\nx,A\n", "sep=;\na;b\n", "[{\"a\":{\"b\":[null,1]}}]", "{\"a\":\"\\ud83d\"}", "\xff\xfea\x00",
		"\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd", "PAR1PAR1", "text,label\n\xe4,\x81\n", "a,\"b\\\"\",c\r\x1a",
	} {
		for _, path := range []string{"-", "a.csv", "a.tsv", "a.json"} {
			f.Add(path, text, "", "auto", "auto")
		}
	}
	f.Add("a.csv", "a;b\n", ";", "backslash", "shift_jis")
	f.Add("a.json", `{"a":"x","b":{"c":"y \ud83d\ude00"},"d":null,"e":[1]}`, "", "auto", "auto")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, path, text, separator, quotes, encoding string) {
		reading := data.Reading{Separator: separator, Quotes: quotes, Encoding: encoding}
		if len(reading.Mistakes()) > 0 || len(text) > 1<<12 {
			return
		}
		if !slices.Contains([]string{"-", "a.csv", "a.tsv", "a.json"}, path) {
			path = "a.csv"
		}
		rowAsTheLibraryReadsIt(t, text)
		if path != data.Stdin {
			file := filepath.Join(dir, path)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			data.Look(data.Source{Path: file, Reading: reading}, data.Roles{}) // must not crash
		}
		unpacked, err := data.OnlyUnpack(text)
		if err != nil {
			return
		}
		rows, _, err := data.OnlyRead(data.Source{Path: path, Reading: reading}, unpacked)
		if err == nil && len(rows) == 0 {
			t.Fatalf("%q: no row and no error", text)
		}
		for _, row := range rows {
			if (row.Err == nil) != (row.Fields != nil) {
				t.Fatalf("%q: row %+v has neither fields nor an error, or both", text, row)
			}
			for name, field := range row.Fields {
				if !utf8.ValidString(field.Text) || field.Text != "" && field.Not != "" {
					t.Fatalf("%q: field %q is %+v", text, name, field)
				}
			}
		}
	})
}

// rowAsTheLibraryReadsIt checks that a row of JSON has the texts that encoding/json reads, in a line
// and in an array.
func rowAsTheLibraryReadsIt(t *testing.T, line string) {
	fields, err := data.ParseObject([]byte(line))
	if err != nil {
		return
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(line), &want); err != nil {
		t.Fatalf("%q is read, but it is not JSON: %v", line, err)
	}
	for name, value := range want {
		text, isText := value.(string)
		if got := fields[name]; isText && got.Not == "" && got.Text != text ||
			value == nil && got.Not == "" {
			t.Fatalf("%q: field %q is %+v, want %v", line, name, got, value)
		}
	}
	if strings.ContainsAny(line, "\r\n") {
		return
	}
	rows, _, err := data.OnlyRead(data.Source{Path: "a.json"}, "[\n"+line+",\n"+line+"]")
	if err != nil || len(rows) != 2 || rows[1].Err != nil || len(rows[1].Fields) != len(fields) || rows[1].Line != 3 {
		t.Fatalf("%q in an array: rows are %+v (%v)", line, rows, err)
	}
}
