package data_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ptune/internal/data"
)

// written returns the rows of a text with a value added to each, from standard input or a file.
func written(t *testing.T, name, text string, reading data.Reading, fields ...string) (string, error) {
	t.Helper()
	from := data.Source{Path: data.Stdin, Reading: reading}
	if name != "" {
		from.Path = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(from.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rs, err := from.Records(strings.NewReader(text), fields)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	write := func(r data.Record) error {
		if err := rs.CheckNames(r, []string{"new"}); err != nil {
			return err
		}
		return rs.Write(&b, r, []data.Value{{Name: "new", Text: `a,"b`}, {Name: "p", Text: "0.5", Number: true}})
	}
	if rs.All == nil {
		err := rs.Each(write)
		return b.String(), err
	}
	if rs.Errors != nil {
		return "", rs.Errors
	}
	for _, r := range rs.All {
		if err := write(r); err != nil {
			return "", err
		}
	}
	err = rs.End(&b)
	return b.String(), err
}

func TestRowsAreWrittenInTheirFormatWithValuesAdded(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		reading          data.Reading
	}{
		{"", "{\"text\": \"<\\u00e9>\", \"n\": 1e3 }\r\n\n{\"text\":\"x\",\"l\":[1]}",
			"{\"text\": \"<\\u00e9>\", \"n\": 1e3,\"new\":\"a,\\\"b\",\"p\":0.5}\n" +
				"{\"text\":\"x\",\"l\":[1],\"new\":\"a,\\\"b\",\"p\":0.5}\n", data.Reading{}},
		{"", "[{\"text\":\"x\"},\n {\"text\":\"y\"}]",
			"[\n{\"text\":\"x\",\"new\":\"a,\\\"b\",\"p\":0.5},\n{\"text\":\"y\",\"new\":\"a,\\\"b\",\"p\":0.5}\n]\n",
			data.Reading{}},
		{"", "[\n{\"text\":\"x\"}]", "[\n{\"text\":\"x\",\"new\":\"a,\\\"b\",\"p\":0.5}\n]\n", data.Reading{}},
		{"", "text,id\n\"a \"\"b\"\"\nc, d\",1\n", "text,id,new,p\n\"a \"\"b\"\"\nc, d\",1,\"a,\"\"b\",0.5\n",
			data.Reading{}},
		{"", "id; text\n1;x\n", "id;text;new;p\n1;x;\"a,\"\"b\";0.5\n", data.Reading{}},
		{"x.tsv", "text\tid\n\"x\t1\n", "text\tid\tnew\tp\n\"x\t1\ta,\"b\t0.5\n", data.Reading{}},
		{"x.csv", "text,id\n\"a \\\"b\\\", \\\\\",1\n",
			"text,id,new,p\n\"a \\\"b\\\", \\\\\",1,\"a,\\\"b\",0.5\n", data.Reading{}},
		{"x.csv", "x,1\n", "x,1,\"a,\"\"b\",0.5\n", data.Reading{Columns: []string{"text", "id"}}},
		{"x.csv", "text,id\ncaf\xe9,1\n", "text,id,new,p\ncafé,1,\"a,\"\"b\",0.5\n", data.Reading{}},
		{"", "\ufeffx, y\n \n[1] z\n", "a,\"b\t0.5\tx, y\n\na,\"b\t0.5\t[1] z\n", data.Reading{}},
		{"x.txt", "{x}\n", "a,\"b\t0.5\t{x}\n", data.Reading{}},
	} {
		got, err := written(t, c.name, c.text, c.reading, "text")
		if err != nil || got != c.want {
			t.Errorf("%q is written as %q (%v), want %q", c.text, got, err, c.want)
		}
	}
}

func TestRowsThatCannotBeWrittenAgainAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"text":"x","new":null}`:  `field "new" already`,
		"new,text\nx,y\n":          `field "new" already`,
		"text,id\nx,1\ny\n":        "standard input:3: the line has 1 cell, want 2",
		"":                         "standard input: there are no rows",
		"[]\n":                     "standard input: the file has no rows",
		"PAR1 nothing of the kind": "not a Parquet file",
	} {
		if got, err := written(t, "", text, data.Reading{}, "text"); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q is written as %q (%v), want %q", text, got, err, want)
		}
	}
	if _, err := written(t, "x.txt", "", data.Reading{}, "text"); err == nil ||
		!strings.HasSuffix(err.Error(), "x.txt: there are no rows") {
		t.Errorf("an empty text file: error is %v", err)
	}
	if _, err := written(t, "", "one text\n", data.Reading{}, "a", "b"); err == nil ||
		!strings.Contains(err.Error(), "cannot fill the template's fields a, b") {
		t.Errorf("error is %v", err)
	}
}

// Rows of Parquet become JSON whose fields are those that were read. JSON has no bytes.
func TestRowsOfParquetAreWrittenAsJSON(t *testing.T) {
	rs, err := data.Source{Path: "testdata/rows.parquet"}.Records(nil, nil)
	if err != nil || rs.Errors != nil || len(rs.All) < 2 {
		t.Fatal(len(rs.All), err, rs.Errors)
	}
	for _, r := range rs.All {
		var b strings.Builder
		if err := rs.Write(&b, r, nil); err != nil {
			t.Fatal(err)
		}
		got, err := data.ParseObject([]byte(b.String()))
		if err != nil || len(got) != len(r.Fields) {
			t.Errorf("%s is written as %s (%v), want %d fields", r.Place, &b, err, len(r.Fields))
		}
		for name, want := range r.Fields {
			x, notNumber := strconv.ParseFloat(want.Text, 64)
			y, _ := strconv.ParseFloat(got[name].Text, 64)
			if same := got[name].Text == want.Text || notNumber == nil && x == y; !same {
				t.Errorf("%s: field %q is %q, want %q", r.Place, name, got[name].Text, want.Text)
			}
		}
	}
	rs, err = data.Source{Path: "testdata/nested.parquet"}.Records(nil, nil)
	if err != nil || rs.Errors == nil || !strings.Contains(rs.Errors.Error(), `the field "raw" is bytes`) {
		t.Errorf("mistakes are %v (%v)", rs.Errors, err)
	}
}

// A table on standard input is read row by row, and written as a file of the same content.
func TestATableIsReadAsItComes(t *testing.T) {
	for _, text := range []string{
		"text,label\na,b\n",
		"id,text\r\n1,\"two\r\nlines\"\r\n\r\n2,\"a \"\"b\"\"\"\r\n",
		"\ufefftext\tn\na \"b\t1\nc\t2",
		"text;x\na;b\n\x1a",
		"text,a,a,\n1,2,3,4\n",
	} {
		want, err := written(t, "rows.csv", text, data.Reading{}, "text")
		if strings.Contains(text, "\t") {
			want, err = written(t, "rows.tsv", text, data.Reading{}, "text")
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := written(t, "", text, data.Reading{}, "text"); err != nil || got != want {
			t.Errorf("%q: got\n%s%v\nwant\n%s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"text,label\na,b\nc\n":          "standard input:3: the line has 1 cell, want 2 (text, label)",
		"text,label\na,b\n\"c,d\n\ne\n": "standard input:3: cell 1: its quotation mark is not closed",
		"text,label\na,b\ncaf\xe9,d\n":  "standard input:3: the line is not valid UTF-8",
		"text,label\n":                  "standard input: the file has no rows",
	} {
		got, err := written(t, "", text, data.Reading{}, "text")
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(text, "a,b") && strings.Count(got, "\n") != 2 {
			t.Errorf("%q: wrote %q, the error is %v, want %s", text, got, err, want)
		}
	}
	rs, err := data.Source{Path: data.Stdin}.Records(endsNever{strings.NewReader("text,n\na,1\n")}, []string{"text"})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := rs.Each(func(r data.Record) error { return stop }); err != stop {
		t.Errorf("the first row ended the reading with %v", err)
	}
}

// endsNever waits for ever at the end.
type endsNever struct{ io.Reader }

func (e endsNever) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		select {}
	}
	return n, err
}
