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
		"\x00":         "a NUL byte at offset 0",
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
		"an id below zero":       {`{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}`, "has id -1"},
		"no vocabulary at all":   {`{"model":{"type":"BPE","merges":[]}}`, "model.vocab: "},
		"a piece's id too large": {`{"model":{"type":"BPE","vocab":{"a":2097152},"merges":[]}}`, "has id 2097152"},
		"the first id too large": {
			`{"added_tokens":[{"id":2097152,"content":"x"}],
				"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`,
			`added token "x" has id 2097152, want 0 to 2097151`,
		},
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

func TestAFileAtItsLimitsIsChecked(t *testing.T) {
	for _, c := range []struct {
		size int
		want string
	}{{64 << 20, ""}, {64<<20 + 1, "f is larger than 64 MB"}} {
		data, err := read(fstest.MapFS{"f": {Data: make([]byte, c.size)}}, "f")
		if c.want == "" && (err != nil || len(data) != c.size) || c.want != "" &&
			(err == nil || err.Error() != c.want) {
			t.Errorf("%d bytes: read %d, error %v, want %q", c.size, len(data), err, c.want)
		}
	}
	for text, ok := range map[string]bool{
		strings.Repeat("[", 64): true, strings.Repeat("[", 65): false,
		strings.Repeat(`{"a":`, 64): true, strings.Repeat(`{"a":`, 65): false,
		strings.Repeat("[]", 99):              true,
		`"` + strings.Repeat("[", 99) + `"`:   true, // in a string
		`"\"` + strings.Repeat("[", 99):       true,
		`"\\"` + strings.Repeat("[", 65):      false,
		`"\\\"` + strings.Repeat("[", 65):     true,
		`"a"` + strings.Repeat("[", 65) + `"`: false,
	} {
		if err := nested([]byte(text)); (err == nil) != ok {
			t.Errorf("%.20s…: error is %v, want none: %v", text, err, ok)
		}
	}
	for added, ok := range map[int]bool{100_000: true, 100_001: false} {
		var f file
		f.Model.Vocab = json.RawMessage(`{"a": 0}`)
		f.AddedTokens = make([]addedToken, added)
		if _, _, err := (&Tokenizer{special: map[int32]bool{}}).vocabulary(&f, nil); (err == nil) != ok {
			t.Errorf("%d added tokens: error is %v, want none: %v", added, err, ok)
		}
	}
}

func TestTheUnknownTokenIsThatOfTheModel(t *testing.T) {
	for model, want := range map[string]int32{
		`{"type":"Unigram","vocab":[["a",0],["b",0]],"unk_id":1}`:     1,
		`{"type":"Unigram","vocab":[["a",0]],"unk_id":0}`:             0,
		`{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"b"}`:  1,
		`{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"c"}`:  -1,
		`{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":null}`: -1,
		`{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}`:            -1,
	} {
		tok, _, err := check([]byte(`{"model":`+model+`}`), false, nil)
		if err != nil || tok.unknown != want {
			t.Errorf("%s: the unknown token is %+v (%v), want %d", model, tok, err, want)
		}
	}
}

// The files of byte-level have a truncation to 4 ids and a padding to 12.
func TestATextIsNeitherCutNorPadded(t *testing.T) {
	for _, without := range []string{"", "truncation", "padding"} {
		fs := with(t, "byte-level", nil)
		var all map[string]json.RawMessage
		if err := json.Unmarshal(fs["tokenizer.json"].Data, &all); err != nil {
			t.Fatal(err)
		}
		delete(all, without)
		var err error
		if fs["tokenizer.json"].Data, err = json.Marshal(all); err != nil {
			t.Fatal(err)
		}
		tok := open(t, fs)
		for _, text := range []string{"a", "the soup was cold and the room was small"} {
			if ids, err := tok.Encode(text); err != nil || tok.Decode(ids) != text ||
				slices.Contains(ids, 0) { // the padding
				t.Errorf("without %q: ids of %q are %v (%v)", without, text, ids, err)
			}
		}
	}
}

func TestATextWithoutAnyTokenIsAnErrorUnlessItIsBlank(t *testing.T) {
	tok := open(t, fstest.MapFS{"tokenizer.json": {Data: []byte(`{"version": "1.0", "added_tokens": [],
		"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}`)}})
	for text, want := range map[string]string{"z": `the tokenizer has no token for "z"`, " ": "", "a": "", "az": ""} {
		ids, err := tok.Encode(text)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: ids %v, error %v, want %q", text, ids, err, want)
		}
	}
}

func TestAnIdBeyondTheModelsVocabularyIsRefused(t *testing.T) {
	for _, c := range []struct {
		vocab int
		id    int32
		want  string
	}{
		{5, 0, ""}, {5, 4, ""}, {5, 5, "the id 5, but the model's vocabulary has 5 tokens (0 to 4)"}, {0, 7, ""},
	} {
		err := (&Tokenizer{Vocab: c.vocab}).CheckIDs([]int32{0, c.id})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error is %v", c, err)
		}
	}
}

func TestBOSIsNotAddedToATextThatBeginsWithIt(t *testing.T) {
	tok := open(t, with(t, "sentencepiece", nil))
	for _, text := range []string{"<s>", "<s>a", ""} {
		ids, err := tok.EncodeInput(text)
		if err != nil || len(ids) == 0 || ids[0] != 1 || slices.Contains(ids[1:], 1) {
			t.Errorf("ids of %q are %v (%v), want one BOS at the beginning", text, ids, err)
		}
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
