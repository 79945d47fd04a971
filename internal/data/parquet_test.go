//go:build parquet

package data_test

import (
	"os"
	"path/filepath"
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
	path := filepath.Join(t.TempDir(), "x.parquet")
	for n := range len(whole) {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := parquetSet(t, path); err == nil || !strings.HasPrefix(err.Error(), path) {
			t.Fatalf("cut after %d bytes: error is %v, want one with the path", n, err)
		}
	}
	// With one byte changed the file may be read or refused, but the reader must not crash.
	for at := range whole {
		changed := append([]byte(nil), whole...)
		changed[at] ^= 0x55
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		parquetSet(t, path)
	}
}
