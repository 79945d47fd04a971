package tokenize

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const dir = "../../testdata/tokenizers"

// others is a folder of goldens that make peer computed with transformers from random texts.
var others = flag.String("goldens", "",
	"folder of tokenizers with a golden.json, used instead of the committed one")

func TestIdsAndTextEqualTheTokenizersLibrary(t *testing.T) {
	dir := dir
	if *others != "" {
		dir = *others
	}
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]struct {
		BOS   []int32
		Texts []struct {
			Text    string
			IDs     []int32
			Decoded *string // nil: versions of the library differ
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	if *others == "" && len(golden) != 13 {
		t.Fatalf("found %d tokenizers, want 13", len(golden))
	}
	for name, g := range golden {
		for _, known := range []Known{nil, func(string) (bool, error) { return true, nil }} {
			tok, err := Open(filepath.Join(dir, name), known)
			if err != nil {
				t.Fatal(err)
			}
			defer tok.Close()
			if !slices.Equal(tok.BOS, g.BOS) {
				t.Errorf("%s: BOS is %v, want %v", name, tok.BOS, g.BOS)
			}
			for _, c := range g.Texts {
				ids, err := tok.Encode(c.Text)
				if err != nil || !slices.Equal(ids, c.IDs) {
					t.Errorf("%s: ids of %q are %v (%v), want %v", name, c.Text, ids, err, c.IDs)
				}
				input, err := tok.EncodeInput(c.Text)
				want := append(slices.Clone(g.BOS), c.IDs...)
				if n := len(g.BOS); n > 0 && len(c.IDs) >= n && slices.Equal(c.IDs[:n], g.BOS) {
					want = c.IDs
				}
				if err != nil || !slices.Equal(input, want) {
					t.Errorf("%s: ids of input %q are %v (%v), want %v", name, c.Text, input, err, want)
				}
				if got := tok.Decode(c.IDs); c.Decoded != nil && got != *c.Decoded {
					t.Errorf("%s: %v decodes to %q, want %q", name, c.IDs, got, *c.Decoded)
				}
			}
		}
	}
}

func TestTextsThatTheLibraryWouldChangeAreRefused(t *testing.T) {
	tok, err := Open(filepath.Join(dir, "byte-level"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	for text, want := range map[string]string{
		"caf\xe9":      "it has the byte 0xe9 at offset 3",
		"\xed\xa0\xbd": "it has the byte 0xed at offset 0", // half of a surrogate pair
		"é\xc3":        "it has the byte 0xc3 at offset 2",
		"a\x00b":       "a NUL byte at offset 1",
		"é \ufffd 🦙":   "",
	} {
		if _, err := tok.Encode(text); want == "" && err != nil ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error is %v, want %q", text, err, want)
		}
	}
}

func TestSpecialAndByteTokensAreNotOrdinary(t *testing.T) {
	tok, err := Open(filepath.Join(dir, "sentencepiece"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	ordinary := 0
	for id := range int32(400) {
		p := tok.Piece(id)
		if tok.Ordinary(id) {
			ordinary++
		}
		if special := id < 3 || strings.HasPrefix(p, "<0x") || p == ""; tok.Ordinary(id) == special {
			t.Errorf("token %d, %q: ordinary is %v", id, p, tok.Ordinary(id))
		}
	}
	if ordinary < 50 {
		t.Errorf("found %d ordinary tokens, want at least 50", ordinary)
	}
}

func TestANULByteIsAnErrorAndAnEmptyTextIsNot(t *testing.T) {
	tok, err := Open(filepath.Join(dir, "byte-level"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	if _, err := tok.Encode("a\x00b"); err == nil ||
		!strings.Contains(err.Error(), "NUL byte at offset 1") {
		t.Errorf("error is %v, want one with the offset of the NUL byte", err)
	}
	if ids, err := tok.Encode(""); err != nil || len(ids) != 0 {
		t.Errorf("ids of the empty text are %v (%v), want none", ids, err)
	}
}

func TestFilesThatCouldCrashTheLibraryAreRefused(t *testing.T) {
	for name, c := range map[string][2]string{
		"not JSON":      {`{`, "tokenizer.json"},
		"unknown model": {`{"model":{"type":"Magic","vocab":{"a":0}}}`, `"Magic"`},
		"a subword prefix": {
			`{"model":{"type":"BPE","continuing_subword_prefix":"##########",
				"vocab":{"a":0,"b":1},"merges":[["a","b"]]}}`,
			"continuing_subword_prefix",
		},
		"no vocabulary":    {`{"model":{"type":"BPE","vocab":{},"merges":[]}}`, "vocab is empty"},
		"a broken Unigram": {`{"model":{"type":"Unigram","vocab":[["a"]]}}`, "entry 0"},
		"a merge of no piece": {`{"model":{"type":"BPE","vocab":{"aaa":0,"bbb":1},"merges":["aaa bbb"]}}`,
			`model.merges: entry 0, "aaa" and "bbb" to "aaabbb", has a piece that is not in the vocabulary`},
		"half a merge": {`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}`,
			"entry 0 is not a pair"},
		"an id twice": {`{"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}}`,
			"want a unique one"},
		"an id below zero": {`{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}`, "has id -1"},
		"an id too large": {
			`{"added_tokens":[{"id":2147483647,"content":"x"}],
				"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`,
			`added token "x" has id 2147483647`,
		},
		"a deep file": {`{"model":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`,
			"nested more than 64 deep"},
		"merges of nothing": {
			`{"version":"1.0","added_tokens":[],
				"model":{"type":"BPE","vocab":{"a":0},"merges":[["x","y"]]}}`,
			"tokenizer.json",
		},
	} {
		tok, err := OpenFS("m", fstest.MapFS{"tokenizer.json": {Data: []byte(c[0])}}, nil)
		if err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c[1])
			if tok != nil {
				tok.Close()
			}
		}
	}
	if _, err := Open(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("an empty directory: error is %v, want one with tokenizer.json", err)
	}
}

func TestKnownGetsTheHashOfTheFileAndItsErrorIsReturned(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(dir, "byte-level/tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	refused, asked := errors.New("it does not load"), ""
	known := func(sum string) (bool, error) {
		asked = sum
		return false, refused
	}
	_, err = Open(filepath.Join(dir, "byte-level"), known)
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); asked != want || err != refused {
		t.Errorf("hash is %q, error %v; want %q, error %v", asked, err, want, refused)
	}
}
