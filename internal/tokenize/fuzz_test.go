package tokenize

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

// FuzzFilesBesideATokenizerAreReadOrRefused fuzzes the files whose tokens are added to tokenizer.json. The
// fuzzer of tokenizer.json alone cannot find what they add.
func FuzzFilesBesideATokenizerAreReadOrRefused(f *testing.F) {
	names := []string{"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
	dirs, err := filepath.Glob("../../testdata/tokenizers/added-*")
	if err != nil || len(dirs) == 0 {
		f.Fatal("no tokenizers in testdata")
	}
	for _, dir := range dirs {
		var files [3][]byte
		for i, name := range names {
			files[i], _ = os.ReadFile(filepath.Join(dir, name)) // not every one has all
		}
		f.Add(files[0], files[1], files[2])
	}
	data, err := os.ReadFile("../../testdata/tokenizers/sentencepiece/tokenizer.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, config, special, added []byte) {
		dir := fstest.MapFS{"tokenizer.json": {Data: data}}
		for i, text := range [][]byte{config, special, added} {
			if len(text) > 0 {
				dir[names[i]] = &fstest.MapFile{Data: text}
			}
		}
		tok, err := OpenFS("m", dir, nil)
		if err != nil {
			return
		}
		defer tok.Close()
		for name, text := range tok.Special {
			id, ok := tok.ID(text)
			if !ok || tok.Piece(id) != text {
				t.Errorf("%s is %q, which has the id %d (%v) and the piece %q", name, text, id, ok, tok.Piece(id))
			}
		}
	})
}

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
