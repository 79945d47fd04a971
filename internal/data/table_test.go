package data_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/data"
)

func loadTable(t *testing.T, name, text string, r data.Reading) ([]string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	o := options
	o.MaxTokens = 100
	s, err := data.Load("train", data.Source{Path: path, Reading: r}, format(t, "{text}", "{label}"),
		letters{}, o)
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), path, name))
	}
	var rows []string
	for _, r := range s.Rows {
		rows = append(rows, fmt.Sprintf("%d:%s>%s",
			r.Line, r.Text, string(r.Target[:len(r.Target)-1])))
	}
	return rows, nil
}

func TestTablesAreReadInEachFormat(t *testing.T) {
	headless := data.Reading{Columns: []string{"label", "text"}}
	for _, c := range []struct {
		what, name, text string
		reading          data.Reading
		want             string
	}{
		{"CSV with quotes, CRLF, a byte order mark and no last newline", "a.csv",
			"\ufefftext,label\r\n\"one, \"\"two\"\"\r\nthree\",A\r\nfour,B", data.Reading{},
			"2:one, \"two\"\nthree>A|4:four>B"},
		{"TSV whose quotation marks are text", "a.tsv", "text\tlabel\nhe said \"no\tA\n\"yes\tB\n",
			data.Reading{}, "2:he said \"no>A|3:\"yes>B"},
		{"TSV without a header", "sms.tsv", "ham\tGo, now\nspam\tFree entry\n", headless,
			"1:Go, now>ham|2:Free entry>spam"},
		{"TSV with quotes", "a.tsv", "text\tlabel\n\"one\ttwo\"\tA\n", data.Reading{Quotes: "on"},
			"2:one\ttwo>A"},
		{"semicolons", "a.csv", "text;label\n1,5;A\n", data.Reading{Separator: ";"}, "2:1,5>A"},
		{"CSV without quotes", "a.csv", "text,label\n\"x,A\n", data.Reading{Quotes: "off"}, "2:\"x>A"},
		{"Latin-1", "a.csv", "text,label\nFu\xdfg\xe4nger,A\n", data.Reading{Encoding: "latin-1"},
			"2:Fußgänger>A"},
		{"other columns", "a.csv", "id,text,label\n7,x,A\n", data.Reading{}, "2:x>A"},
		{"JSON lines in Latin-1", "a.jsonl", "{\"text\": \"\xe4\", \"label\": \"A\"}",
			data.Reading{Encoding: "latin-1"}, "1:ä>A"},
	} {
		rows, err := loadTable(t, c.name, c.text, c.reading)
		if got := strings.Join(rows, "|"); err != nil || got != c.want {
			t.Errorf("%s: rows are %q (%v), want %q", c.what, got, err, c.want)
		}
	}
}

func TestErrorsInTablesNameTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name, text string
		reading    data.Reading
		want       string
	}{
		{"a.csv", "text,label\nx\ny,B,C\n", data.Reading{},
			"a.csv:2: the line has 1 cell, want 2 (text, label)\n" +
				"a.csv:3: the line has 3 cells, want 2 (text, label)"},
		{"a.csv", "text,label\nx;A\n", data.Reading{},
			`a.csv:2: the line has 1 cell, want 2 (text, label); ` +
				`is the separator ";"? set data.separator`},
		{"a.csv", "text,label\n\"x,A\n", data.Reading{},
			`a.csv:2:6: extraneous or missing " in quoted-field ` +
				`(with data.quotes: off, quotation marks are text)`},
		{"a.csv", "text,label\nx\"y,A\n", data.Reading{},
			`a.csv:2:2: bare " in non-quoted-field ` +
				`(with data.quotes: off, quotation marks are text)`},
		{"a.csv", "text,label\n\xe4,A\n", data.Reading{},
			"a.csv:2: the line is not valid UTF-8; for Latin-1 set data.encoding: latin-1"},
		{"a.tsv", "text\ttext\nx\tA\n", data.Reading{},
			`a.tsv:1: the first line must name the columns, but the name of column 2, "text", ` +
				`is empty, duplicate or broken; if the file has no such line, set data.columns`},
		{"a.tsv", "text\tname\nx\tA\n", data.Reading{},
			`a.tsv:2: target: no field "label" in the row; it has "name", "text"`},
		{"a.csv", "text,label\n", data.Reading{}, "a.csv: the file has no rows"},
		{"a.csv", "", data.Reading{}, "a.csv: the file has no rows"},
		{"a.xlsx", "x", data.Reading{},
			`a.xlsx: want a .jsonl, .csv, .tsv or .parquet file, not ".xlsx"`},
	} {
		if _, err := loadTable(t, c.name, c.text, c.reading); err == nil || err.Error() != c.want {
			t.Errorf("table %q: error is\n%v\nwant\n%s", c.text, err, c.want)
		}
	}
}

func TestASplitKeepsEqualTextsTogetherAndIsStableWhenRowsAreAdded(t *testing.T) {
	set := func(n int) *data.Set {
		s := &data.Set{Path: "x"}
		for i := range n {
			s.Rows = append(s.Rows, data.Row{Line: i + 1, Text: fmt.Sprint("text ", i%500)})
		}
		return s
	}
	train := set(1000)
	valid, err := train.Split("valid", 0.2)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(valid.Rows); n < 150 || n > 250 || n+len(train.Rows) != 1000 {
		t.Errorf("%d of 1000 rows are in the split, want about 200", n)
	}
	where := map[string]bool{}
	for _, r := range valid.Rows {
		where[r.Text] = true
	}
	for _, r := range train.Rows {
		if where[r.Text] {
			t.Fatalf("text %q is on both sides of the split", r.Text)
		}
	}
	less := set(300)
	if fewer, err := less.Split("valid", 0.2); err != nil {
		t.Fatal(err)
	} else {
		for _, r := range fewer.Rows {
			if !where[r.Text] {
				t.Errorf("text %q is in the split of 300 rows, but not in that of 1000", r.Text)
			}
		}
	}
	if _, err := set(1).Split("valid", 0.5); err == nil {
		t.Error("one row was split, want an error")
	}
}

func FuzzATableIsReadOrRefused(f *testing.F) {
	f.Add("a.csv", "text,label\n\"x,\"\"y\",A\n", "", "auto", false)
	f.Add("a.tsv", "text\tlabel\nx\tA\n", "", "auto", true)
	f.Add("a.csv", "x;A\n", ";", "off", false)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, name, text, separator, quotes string, columns bool) {
		if name != "a.tsv" {
			name = "a.csv"
		}
		if n := len([]rune(separator)); n > 1 || strings.ContainsAny(separator, "\"\r\n\ufeff\ufffd") ||
			len(text) > 1<<12 {
			return // not a valid separator in a task file, or a long text
		}
		r := data.Reading{Separator: separator, Quotes: quotes}
		if columns {
			r.Columns = []string{"text", "label"}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := data.Load("train", data.Source{Path: path, Reading: r}, format(t, "{text}", "{label}"),
			letters{}, options)
		if err == nil && len(s.Rows) == 0 {
			t.Errorf("text %q: no row and no error", text)
		}
		data.Look(path)
	})
}
