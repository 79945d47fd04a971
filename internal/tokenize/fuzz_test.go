package tokenize

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzATokenizerFileIsCheckedOrRefused fuzzes the checks that run before the library reads a file.
// The program then tries the file in a child process.
func FuzzATokenizerFileIsCheckedOrRefused(f *testing.F) {
	files, err := filepath.Glob("../../testdata/tokenizers/*/tokenizer.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no tokenizers in testdata")
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 64<<10 {
			f.Add(data)
		}
	}
	f.Add([]byte(`{"added_tokens": [{"id": 2, "content": "<s>", "special": true}], "padding": {},
		"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}`))
	f.Add([]byte(`{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, cleaned, err := check(data, false, nil)
		if err != nil {
			if len(err.Error()) > 20_000 {
				t.Fatalf("the error has %d bytes, want at most 20000", len(err.Error()))
			}
			return
		}
		if cleaned != nil && !json.Valid(cleaned) {
			t.Errorf("the cleaned file %q is not JSON", cleaned)
		}
	})
}
