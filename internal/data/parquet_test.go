package data_test

import (
	"os"
	"strings"
	"testing"

	"ptune/internal/data"
)

func parquetSet(t *testing.T, path string) (*data.Set, error) {
	t.Helper()
	f, err := data.NewFormat("{text} {number} {share} {sure}", " {label}",
		[]data.Label{{Value: "0", Name: "bad"}, {Value: "1", Name: "good"}})
	if err != nil {
		t.Fatal(err)
	}
	return data.Load("train", data.Source{Path: path}, f, letters{}, data.Options{MaxTokens: 200})
}

// arrow is a file that testdata/parquet.py wrote with pyarrow. It has dictionary pages, nulls, snappy
// compression and two row groups.
const arrow = "testdata/rows.parquet"

func TestAParquetFileFromPyArrowIsRead(t *testing.T) {
	s, err := parquetSet(t, arrow)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 5 {
		t.Fatalf("got %d rows, want 5", len(s.Rows))
	}
	if got, want := s.Rows[0].Text, "Größe 日本 7 0.25 true"; got != want {
		t.Errorf("the first row is %q, want %q", got, want)
	}
	if got, want := s.Rows[4], "line\nbreak -1 1e-07 false"; got.Text != want || got.Label != 1 ||
		got.Line != 5 {
		t.Errorf("the last row is %+v, want %q with label 1", got, want)
	}
}

func TestABrokenParquetFileIsAnErrorWithItsPath(t *testing.T) {
	whole, err := os.ReadFile(arrow)
	if err != nil {
		t.Fatal(err)
	}
	read := func(content []byte) error {
		_, _, err := data.OnlyRead(data.Source{Path: "x.parquet"}, string(content))
		return err
	}
	for n := range len(whole) {
		if err := read(whole[:n]); err == nil || !strings.HasPrefix(err.Error(), "x.parquet: ") {
			t.Fatalf("cut after %d bytes: error is %v, want one with the path", n, err)
		}
	}
	// With one byte changed the file may be read or refused, but the reader must not crash.
	for at := range whole {
		changed := append([]byte(nil), whole...)
		changed[at] ^= 0x55
		read(changed)
	}
}

func TestListsAndGroupsOfAParquetFileAreRead(t *testing.T) {
	content, err := os.ReadFile("testdata/nested.parquet")
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := data.OnlyRead(data.Source{Path: "x.csv"}, string(content)) // its content counts
	if err != nil || len(rows) != 3 {
		t.Fatalf("rows are %v (%v), want 3", rows, err)
	}
	a := rows[0].Fields
	if a["text"].Text != "one" || a["meta.source"].Text != "a" || a["meta.inner.n"].Text != "1" ||
		a["tags"].Not != "a list" || a["meta"].Not != "an object" {
		t.Errorf("the first row is %+v", a)
	}
	if raw := a["raw"].Not; raw != "bytes that are not UTF-8" || rows[2].Fields["raw"].Not != "null" {
		t.Errorf("bytes are %q and %q", raw, rows[2].Fields["raw"].Not)
	}
}
