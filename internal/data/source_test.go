package data_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"

	"ptune/internal/data"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstandard(t *testing.T, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(w.EncodeAll([]byte(text), nil))
}

func TestTheFormatOfAFileIsFoundByItsContentOrItsName(t *testing.T) {
	const object = `{"text":"x","label":"A"}`
	for _, c := range []struct{ what, name, text, want string }{
		{"a gzip file", "a.csv.gz", gzipped(t, "text,label\nx,A\n"), "2:x>A"},
		{"a gzip file with another name", "a.csv", gzipped(t, "text,label\nx,A\n"), "2:x>A"},
		{"gzipped JSON lines", "a.jsonl.gz", gzipped(t, object), "1:x>A"},
		{"a zstd file", "a.tsv.zst", zstandard(t, "text\tlabel\nx\tA\n"), "2:x>A"},
		{"a zstd file with another name", "a.json", zstandard(t, "["+object+"]"), "1:x>A"},
		{"upper case in the name", "A.CSV.GZ", gzipped(t, "text,label\nx,A\n"), "2:x>A"},
		{"a JSON array", "a.json", "\ufeff[\n" + object + ",\n\n {\n\"text\": \"y\", \"label\": \"B\"}]\n", "2:x>A|4:y>B"},
		{"a JSON array in .jsonl", "a.jsonl", "\n[" + object + "," + object + "]", "2:x>A|2:x>A"},
		{"JSON lines in .json", "a.json", object + "\n" + object, "1:x>A|2:x>A"},
		{"UTF-16 JSON lines, as PowerShell writes them", "a.jsonl",
			"\xff\xfe" + encoded(t, "utf-16le", object), "1:x>A"},
	} {
		rows, err := loadTable(t, c.name, c.text, data.Reading{})
		if got := strings.Join(rows, "|"); err != nil || got != c.want {
			t.Errorf("%s: rows are %q (%v), want %q", c.what, got, err, c.want)
		}
	}
}

func TestStandardInputIsReadByItsContent(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"text":"x"}` + "\n" + `{"text":"y"}`, "1:x 2:y"},
		{"\ufeff\n " + `[{"text":"x"}]`, "2:x"},
		{"text,label\nx,A", "2:x"},
		{"text\tlabel\n\"x\tA", `2:"x`},
		{"sep=;\ntext;label\nx;A", "3:x"},
		{"label\ttext\rA\tx", "2:x"},
	} {
		rows, _, err := data.OnlyRead(data.Source{Path: data.Stdin}, c.text)
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprintf("%d:%s", r.Line, r.Fields["text"].Text))
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: rows are %q (%v), want %q", c.text, got, err, c.want)
		}
	}
	_, _, err := data.OnlyRead(data.Source{Path: data.Stdin}, "\n")
	if err == nil || err.Error() != "standard input: the file has no rows" {
		t.Errorf("empty standard input: error is %v", err)
	}
}

func TestAFileThatIsNoRowsIsNamed(t *testing.T) {
	whole := gzipped(t, strings.Repeat("text,label\n", 1000))
	for _, c := range []struct{ name, text, want string }{
		{"a.csv", "PK\x03\x04\x14\x00", "the file is a zip archive, as .xlsx files and those of torch.save are: unpack it, or export the sheet as .csv"},
		{"a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a Git LFS pointer"},
		{"a.jsonl", "<!DOCTYPE html>\n<html>", "an HTML page"},
		{"a.csv", "BZh91AY&SY", "compressed with bzip2"},
		{"a.csv", "\xfd7zXZ\x00\x00", "compressed with xz"},
		{"a.csv", "SQLite format 3\x00", "an SQLite database"},
		{"a.csv.gz", whole[:len(whole)-20], "unpack a.csv.gz with gzip: unexpected EOF"},
		{"a.csv.zst", "\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff", "unpack a.csv.zst with zstd"},
		{"a.parquet", "text,label\nx,A\n", "a.parquet: not a Parquet file"},
		{"a.csv", "PAR1 or not", "a.csv: not a Parquet file"},
		{"a.parquet", "PAR1PAR1PAR1PAR1", "a.parquet: not a Parquet file: its footer is longer than the file"},
		{"a.json", "{\n\"data\": [\n{\"text\":\"x\"}]}", "the file is one JSON object; want a list of objects"},
		{"a.json", "[1]", "a.json:1: not a JSON object: it is a number, want an object {…}"},
		{"a.json", `[{"text":"x","label":"A"},` + "\n" + `"y"]`, "a.json:2: not a JSON object: it is a string"},
		{"a.jsonl", `["x","A"]` + "\n" + `["y","B"]`, "a.jsonl:1: the file begins with [, but it is not a JSON array: "},
		{"a.json", "[{\"text\":\"x\"}\n", "a.json:1: the file begins with [, but it is not a JSON array: the file ends before the array does"},
		{"a.json", "[]", "a.json: the file has no rows"},
		{"a.json", "[{\"text\":\"x\"}]\n}", "a.json:1: the file begins with [, but it is not a JSON array: there is text after it"},
		{"a.txt", "text,label\nx,A\n", `want a .jsonl, .json, .csv, .tsv or .parquet file, not ".txt"`},
	} {
		if _, err := loadTable(t, c.name, c.text, data.Reading{}); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %.20q: error is\n%v\nwant one with\n%s", c.name, c.text, err, c.want)
		}
	}
}

func TestTheFooterOfAParquetFileIsWithinIt(t *testing.T) {
	for content, longer := range map[string]bool{
		"PAR1\x00\x00\x00\x00PAR1": false, "PAR1\x01\x00\x00\x00PAR1": true,
		"PAR1x\x01\x00\x00\x00PAR1": false, "PAR1x\x02\x00\x00\x00PAR1": true, "PAR1PAR1PAR": true,
	} {
		_, _, err := data.OnlyRead(data.Source{Path: "x.parquet"}, content)
		if err == nil || strings.Contains(err.Error(), "its footer is longer than the file") != longer {
			t.Errorf("%q: error is %v, want one about the footer: %v", content, err, longer)
		}
	}
}

func TestMistakesInHowAFileIsWrittenAreFound(t *testing.T) {
	for _, c := range []struct {
		reading data.Reading
		key     string // with a mistake
	}{
		{data.Reading{Quotes: "auto", Encoding: "auto"}, ""},
		{data.Reading{Quotes: "off", Encoding: "latin-1", Separator: ";", Columns: []string{"a", "b"}}, ""},
		{data.Reading{Quotes: "on", Encoding: "utf-8", Separator: "→"}, ""},
		{data.Reading{Quotes: "single", Encoding: "auto"}, "quotes"},
		{data.Reading{Quotes: "auto", Encoding: "klingon"}, "encoding"},
		{data.Reading{Quotes: "auto", Encoding: "auto", Separator: ";;"}, "separator"},
		{data.Reading{Quotes: "auto", Encoding: "auto", Separator: "\n"}, "separator"},
		{data.Reading{Quotes: "auto", Encoding: "auto", Columns: []string{"a", ""}}, "columns"},
		{data.Reading{Quotes: "auto", Encoding: "auto", Columns: []string{"a", "a"}}, "columns"},
	} {
		got := c.reading.Mistakes()
		if c.key == "" && len(got) > 0 || c.key != "" && (len(got) != 1 || got[0].Key != c.key) {
			t.Errorf("%+v: mistakes are %v, want one in %q", c.reading, got, c.key)
		}
	}
}

// encoded returns a text in an encoding.
func encoded(t *testing.T, name, text string) string {
	t.Helper()
	encoder := map[string]interface{ String(string) (string, error) }{
		"windows-1252": charmap.Windows1252.NewEncoder(),
		"windows-1251": charmap.Windows1251.NewEncoder(),
		"iso-8859-15":  charmap.ISO8859_15.NewEncoder(),
		"shift_jis":    japanese.ShiftJIS.NewEncoder(),
		"utf-16le":     unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder(),
		"utf-16be":     unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewEncoder(),
	}[name]
	s, err := encoder.String(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEncodingsAreFoundOutOrAskedFor(t *testing.T) {
	const western, russian, japanese = "text,label\nShe said “naïve” – 5 €, good\n",
		"text,label\nПривет,да\n", "text,label\n日本の本,良い\n"
	for _, c := range []struct{ what, encoding, in, text, asked, want, note string }{
		{"windows-1252", "windows-1252", "", western, "", "She said “naïve” – 5 €> good",
			`was read as windows-1252, with "“naïve”" in line 2; if that is wrong, set data.encoding`},
		{"windows-1252 asked for", "windows-1252", "", western, "cp1252", "She said “naïve” – 5 €> good", ""},
		{"Latin-1 means windows-1252", "windows-1252", "", western, "latin-1", "She said “naïve” – 5 €> good", ""},
		{"ISO-8859-15", "iso-8859-15", "", "text,label\n5 €,A\n", "iso8859_15", "5 €>A", ""},
		{"UTF-16 with a byte order mark", "utf-16le", "\xff\xfe", western, "", "She said “naïve” – 5 €> good", ""},
		{"big-endian UTF-16 with a byte order mark", "utf-16be", "\xfe\xff", russian, "", "Привет>да", ""},
		{"UTF-16 whose byte order mark says other than asked", "utf-16be", "\xfe\xff", russian, "utf-16",
			"Привет>да", ""},
		{"UTF-16 without a byte order mark", "utf-16le", "", japanese, "utf-16le", "日本の本>良い", ""},
		{"windows-1251", "windows-1251", "", russian, "cp1251", "Привет>да", ""},
		{"Shift JIS", "shift_jis", "", japanese, "Shift_JIS", "日本の本>良い", ""},
	} {
		rows, notes, err := data.OnlyRead(
			data.Source{Path: "a.csv", Reading: data.Reading{Encoding: c.asked}}, c.in+encoded(t, c.encoding, c.text))
		if err != nil || len(rows) != 1 {
			t.Errorf("%s: rows are %v (%v), want one", c.what, rows, err)
			continue
		}
		got := rows[0].Fields["text"].Text + ">" + rows[0].Fields["label"].Text
		if got != c.want || (len(notes) > 0) != (c.note != "") || !strings.Contains(strings.Join(notes, ""), c.note) {
			t.Errorf("%s: row is %q, notes are %q; want %q and %q", c.what, got, notes, c.want, c.note)
		}
	}
}

// Half of the letters may be bytes that are not UTF-8.
func TestTextOfMostlyASCIIIsWindows1252(t *testing.T) {
	for high, ok := range map[int]bool{1: true, 5: true, 6: false} { // of text,label and A: ten letters
		text := "text,label\n" + strings.Repeat("\xe4", high) + ",A\n"
		rows, notes, err := data.OnlyRead(data.Source{Path: "a.csv"}, text)
		if (err == nil) != ok || ok && (len(notes) != 1 || rows[0].Fields["text"].Text != strings.Repeat("ä", high)) {
			t.Errorf("%d bytes above 127 beside 10 letters: rows %v, notes %q (%v)", high, rows, notes, err)
		}
	}
	text := "text,label\nabc de" + strings.Repeat("\xe4", 40) + ",A" + strings.Repeat("x", 100) + "\n"
	_, notes, err := data.OnlyRead(data.Source{Path: "a.csv"}, text)
	if want := fmt.Sprintf("with %q in line 2;", "de"+strings.Repeat("ä", 28)); err != nil || len(notes) != 1 ||
		!strings.Contains(notes[0], want) {
		t.Errorf("notes are %q (%v), want one with the first 30 letters: %s", notes, err, want)
	}
}

func TestBytesThatAreNotInTheEncodingAreRefused(t *testing.T) {
	for _, c := range []struct{ what, name, text, encoding, want string }{
		{"Russian that could be anything", "a.csv", encoded(t, "windows-1251", "текст,label\nПривет,да\n"), "",
			"a.csv: the file is not UTF-8, and its encoding cannot be guessed; set data.encoding"},
		{"Japanese that could be anything", "a.tsv", encoded(t, "shift_jis", "text\t本\n日本の本\t良い\n"), "",
			"its encoding cannot be guessed"},
		{"bytes without a character in windows-1252", "a.csv", "text,label\nabc \x81,A\n", "",
			"its encoding cannot be guessed"},
		{"UTF-16 without a byte order mark", "a.csv", encoded(t, "utf-16le", "text,label\nx,A\n"), "",
			"seems to be UTF-16 without a byte order mark; if so, set data.encoding: utf-16le"},
		{"big-endian UTF-16 without a byte order mark", "a.jsonl", encoded(t, "utf-16be", `{"text":"x"}`), "",
			"set data.encoding: utf-16be"},
		{"UTF-32", "a.csv", "\xff\xfe\x00\x00t\x00\x00\x00", "", "the file is UTF-32"},
		{"half a character of Shift JIS", "a.csv", "text,label\n\x93\xfa\x96,A\n", "shift_jis",
			"a.csv:2: the line has bytes that are not shift_jis"},
		{"half a character of UTF-16", "a.tsv", "\xff\xfe" + encoded(t, "utf-16le", "text\tlabel\nx\tA") + "\x00\xd8", "",
			"a.tsv:2: the line has bytes that are not utf-16le"},
		{"JSON is not guessed", "a.jsonl", `{"text":"` + "\xe4" + `","label":"A"}`, "",
			"a.jsonl:1: the line is not valid UTF-8"},
		{"an encoding that does not exist", "a.csv", "text,label\nx,A\n", "klingon", `unknown encoding "klingon"`},
	} {
		_, err := loadTable(t, c.name, c.text, data.Reading{Encoding: c.encoding})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is\n%v\nwant one with\n%s", c.what, err, c.want)
		}
	}
}

func TestFieldsThatAreNoTextsAreNamed(t *testing.T) {
	for _, c := range []struct{ row, template, want string }{
		{`{"a":null}`, "{a}", `input: the field "a" is null`},
		{`{"a":null}`, "{a.b}", `input: the field "a" is null, so there is no "a.b"`},
		{`{"a":{"b":null}}`, "{a.b.c}", `input: the field "a.b" is null, so there is no "a.b.c"`},
		{`{"a":["x"]}`, "{a}", `input: the field "a" is a list`},
		{`{"a":{"b":"x"}}`, "{a}", `input: the field "a" is an object; {a.name} is its field "name"`},
		{`{"a":{"b":null}}`, "{a.b}", `input: the field "a.b" is null`},
		{`{"a":{"b":"x"}}`, "{a.c}", `input: no field "a.c" in the row; it has "a", "a.b", "l"`},
		{`{"a":{"b":"x"},"a.b":"y"}`, "{a.b}", `input: the field "a.b" is there twice, `},
		{`{"a":{"b":"x","b":"y"}}`, "{a.b}", `duplicate field "a.b"`},
		{`{"a":"\ud83d"}`, "{a}", `a string has \ud83d, which is half of a surrogate pair`},
		{`{"a":"\\\ude00 \ud83d\ude00"}`, "{a}", `a string has \ude00, `},
		{`{"a":[{"b":"\ud83d\u0041"}]}`, "{l}", `a string has \ud83d, `},
	} {
		row := strings.TrimSuffix(c.row, "}") + `,"l":"A"}`
		_, err := load(t, row, format(t, c.template, "{l}"), options)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("row %s, template %s: error is\n%v\nwant one with\n%s", row, c.template, err, c.want)
		}
	}
}

func TestFieldsOfObjectsAreFields(t *testing.T) {
	const row = `{"a":{"b":"x","c":{"d":1.50}},"e.f":"\ud83d\ude00 \\ud83d","l":{"m":true}}`
	s, err := load(t, row, format(t, "{a.b}{a.c.d}{e.f}", "{l.m}"), options)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Rows[0].Text, `x1.50😀 \ud83d`; got != want {
		t.Errorf("input is %q, want %q", got, want)
	}
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	fields, err := data.ParseObject([]byte(deep))
	if err != nil || fields["a.a.a"].Not == "" || len(fields) != 8 {
		t.Errorf("fields of a deep object are %d (%v), want 8", len(fields), err)
	}
}
