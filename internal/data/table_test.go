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
		{"an unnamed column, as pandas writes it", "a.csv", ",text,label\n0,x,A\n", data.Reading{}, "2:x>A"},
		{"several unnamed columns", "a.csv", ",text,,label, \n0,x,1,A,2\n", data.Reading{}, "2:x>A"},
		{"a name twice that no template uses", "a.tsv", "id\ttext\tid\tlabel\n0\tx\t1\tA\n", data.Reading{},
			"2:x>A"},
		{"a name that is not UTF-8 and a long one", "a.csv",
			"\xff,text,label," + strings.Repeat("n", 300) + "\n0,x,A,1\n", data.Reading{Encoding: "utf-8"}, "2:x>A"},
		{"semicolons without a word", "a.csv", "text;label\n1,5;A\nx;B\n", data.Reading{}, "2:1,5>A|3:x>B"},
		{"tabs in a .csv", "a.csv", "text\tlabel\nx, y\tA\n", data.Reading{}, "2:x, y>A"},
		{"bars", "a.csv", "text|label\nx|A\n", data.Reading{}, "2:x>A"},
		{"commas in a .tsv", "a.tsv", "text,label\nx,A\n", data.Reading{}, "2:x>A"},
		{"sep= of Excel", "a.csv", "sep=;\r\ntext;label\r\nx;A\r\n", data.Reading{}, "3:x>A"},
		{"sep= with another separator asked for", "a.csv", "SEP=;\ntext|label\nx;y|A\n",
			data.Reading{Separator: "|"}, "3:x;y>A"},
		{"lines that end in CR alone", "a.csv", "text,label\rx,A\ry,B\r", data.Reading{}, "2:x>A|3:y>B"},
		{"TSV whose lines end in CR alone", "a.tsv", "text\tlabel\rx\tA\r", data.Reading{}, "2:x>A"},
		{"a quotation mark inside a cell beside quoted cells", "a.csv",
			"text,label\n5\" pipe,\"A\"\n\"a, b\",B \"2\"\n", data.Reading{}, "2:5\" pipe>A|3:a, b>B \"2\""},
		{"blanks around quotation marks", "a.csv", "text, \"label\"\n\"a, b\" , \"A, B\"\n",
			data.Reading{Columns: []string{"text", "label"}}, "1:text>label|2:a, b>A, B"},
		{"text that begins with a blank and a quotation mark", "a.csv", "label,text\nA, \"x\" he said\n",
			data.Reading{}, "2: \"x\" he said>A"},
		{"backslashes before quotation marks", "a.csv",
			"text,label\n\"he said \\\"a, b\\\"\",A\n\"c:\\\\x\",B\n", data.Reading{}, `2:he said "a, b">A|3:c:\x>B`},
		{"backslashes as asked for", "a.csv", "text,label\n\"a\\\"\",A\n\"b\\n\",B\n",
			data.Reading{Quotes: "backslash"}, `2:a">A|3:b\n>B`},
		{"a backslash at the end of a quoted cell", "a.csv", "text,label\n\"c:\\\",A\n", data.Reading{}, `2:c:\>A`},
		{"blank lines and ^Z", "a.csv", "text,label\n  \nx,A\n\t\n \r\n\x1a", data.Reading{}, "3:x>A"},
		{"^Z right after the last row", "a.tsv", "text\tlabel\nx\tA\x1a\r\n", data.Reading{}, "2:x>A"},
		{"^Z in JSON lines", "a.jsonl", "{\"text\":\"x\",\"label\":\"A\"}\r\n\x1a", data.Reading{}, "1:x>A"},
		{"an empty last cell before ^Z", "a.tsv", "label\tn\ttext\nA\tx\t\x1a",
			data.Reading{Columns: []string{"label", "n", "text"}}, "1:text>label|2:>A"},
	} {
		rows, err := loadTable(t, c.name, c.text, c.reading)
		if got := strings.Join(rows, "|"); err != nil || got != c.want {
			t.Errorf("%s: rows are %q (%v), want %q", c.what, got, err, c.want)
		}
	}
}

func TestWhatWasFoundOutAboutATableIsNoted(t *testing.T) {
	const semicolons = "a.csv: the cells are separated by \";\" (to be sure, set data.separator)"
	const backslash = `a.csv: quotation marks in cells are written \" (to be sure, set data.quotes: backslash)`
	for _, c := range []struct {
		text    string
		reading data.Reading
		want    string
	}{
		{"text,label\nx,A\n", data.Reading{}, ""},
		{"text;label\nx;A\n", data.Reading{}, semicolons},
		{"text;label\nx;A\n", data.Reading{Separator: ";"}, ""},
		{"text,label\n\"a \\\"b, c\\\"\",A\n", data.Reading{}, backslash},
		{"text,label\n\"a \\\"b, c\\\"\",A\n", data.Reading{Quotes: "backslash"}, ""},
		{"text;label\n\"a \\\"b; c\\\"\";A\n", data.Reading{}, semicolons + "|" + backslash},
		{"text;label\n\"a \\\"b; c\\\"\";A\n", data.Reading{Quotes: "backslash"}, semicolons + "|" + backslash},
		{"text\nx\ntext\n", data.Reading{}, ""}, // a table of one column may have its name as a text
	} {
		rows, notes, err := data.OnlyRead(data.Source{Path: "a.csv", Reading: c.reading}, c.text)
		if got := strings.Join(notes, "|"); err != nil || got != c.want {
			t.Errorf("%q: notes are %q (%v), want %q", c.text, got, err, c.want)
		}
		for _, r := range rows {
			if r.Err != nil {
				t.Errorf("%q: line %d: %v", c.text, r.Line, r.Err)
			}
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
			`a.csv:2: cell 1: its quotation mark is not closed (with data.quotes: off, quotation marks are text)`},
		{"a.csv", "text,label\nx,\"y\"z\nu,v\n\"a\"b,c\n", data.Reading{},
			`a.csv:2: cell 2: after its closing quotation mark comes 'z', want "," or the end of the line; ` +
				`inside a cell, " is written "" (with data.quotes: off, quotation marks are text) ` +
				`(and 1 more: line 4)`},
		{"a.csv", "text,label\n\xc3\xa4\xc3\xb6,A\n\xe4,B\n", data.Reading{},
			"a.csv:3: the line is not valid UTF-8; set data.encoding, for example to windows-1252"},
		{"a.csv", "text,label\n\xe4,A\n", data.Reading{Encoding: "utf-8"},
			"a.csv:2: the line is not valid UTF-8; set data.encoding, for example to windows-1252"},
		{"a.tsv", "text\ttext\tlabel\nx\ty\tA\n", data.Reading{},
			`a.tsv:2: input: the field "text" is the name of several columns; rename all but one`},
		{"a.csv", "text,label\nx,A\ntext,label\ny,B\n", data.Reading{},
			"a.csv:3: the line repeats the names of the columns"},
		{"a.csv", "text;label\nx;A\ny\n", data.Reading{},
			`a.csv:2: target: no field "label" in the row; it has "text;label"; ` +
				`is the separator ";"? set data.separator (and 1 more: line 3)`},
		{"a.tsv", "text\tname\nx\tA\n", data.Reading{},
			`a.tsv:2: target: no field "label" in the row; it has "name", "text"`},
		{"a.csv", ",text,\n0,x,1\n", data.Reading{},
			`a.csv:2: target: no field "label" in the row; it has "text"`},
		{"a.csv", "text,label\n", data.Reading{}, "a.csv: the file has no rows"},
		{"a.csv", "", data.Reading{}, "a.csv: the file has no rows"},
		{"a.xlsx", "x", data.Reading{}, `a.xlsx: want a .jsonl, .json, .csv, .tsv or .parquet file, not ".xlsx"`},
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
