package tokenize

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

func TestOnlyTokenizersThatPutASpaceBeforeATextPrepend(t *testing.T) {
	for name, want := range map[string]bool{
		"byte-level": false, "byte-level-nfc": false, "byte-level-added": false, "metaspace-never": false,
		"sentencepiece": true, "metaspace-first": true, "unigram": true, "added-in-both": true,
	} {
		tok, err := Open(filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		if tok.Prepends != want {
			t.Errorf("%s: Prepends is %v, want %v", name, tok.Prepends, want)
		}
		tok.Close()
	}
	for raw, want := range map[string]bool{
		`null`: false, ``: false, `{"type": "NFC"}`: false, `[]`: false,
		`{"type": "Prepend", "prepend": ""}`:                                                       false,
		`{"type": "Metaspace", "replacement": "▁"}`:                                                true,
		`{"type": "Metaspace", "replacement": "▁", "add_prefix_space": false}`:                     false,
		`{"type": "Metaspace", "add_prefix_space": true, "prepend_scheme": "never"}`:               false,
		`{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Metaspace"}]}`:       true,
		`{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}`:               true,
		`{"type": "ByteLevel", "add_prefix_space": true}`:                                          false,
		`{"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": true}]}`: false,
	} {
		if got := prepends(json.RawMessage(raw)); got != want {
			t.Errorf("%s: prepends is %v, want %v", raw, got, want)
		}
	}
}

// continuations are inputs and targets. None of the tokenizers merges across their borders.
var continuations = [][2]string{
	{"the soup was cold\nAnswer:", " good"}, {"the room:", " bad"}, {"x\nAnswer:", "good"},
	{"the view", "\ngood"}, {"said:", " the soup, 12"}, {"<s> Was it?", " 日本"},
}

func TestATargetHasTheIdsItHasBehindItsInput(t *testing.T) {
	for _, name := range []string{"sentencepiece", "metaspace-first", "unigram", "sentencepiece-no-bos"} {
		tok := open(t, with(t, name, nil))
		all := continuations
		if name == "unigram" { // it has no token for g, and one for a run of unknown characters
			all = [][2]string{{"the soup:", " cold"}, {"Was it?", "cold"}, {"the view", " was the best"}, {"the room", "\ncold"}}
		}
		for _, c := range all {
			input, err := tok.Encode(c[0])
			if err != nil {
				t.Fatal(err)
			}
			whole, err := tok.Encode(c[0] + c[1])
			if err != nil {
				t.Fatal(err)
			}
			for _, head := range []string{c[0], "", c[0][len(c[0])-1:], "never merged?", "\x00"} {
				got, err := tok.EncodeAfter(head, c[1])
				if err != nil || !slices.Equal(slices.Concat(input, got), whole) {
					t.Errorf("%s: %q after %q is %v (%v), want what follows %v in %v",
						name, c[1], head, got, err, input, whole)
				}
			}
		}
	}
}

func TestByteLevelTokenizersEncodeTargetsAsBefore(t *testing.T) {
	for _, name := range []string{"byte-level", "byte-level-nfc", "byte-level-added", "metaspace-never"} {
		tok := open(t, with(t, name, nil))
		for _, c := range continuations {
			alone, err := tok.Encode(c[1])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tok.EncodeAfter(c[0], c[1]); err != nil || !slices.Equal(got, alone) {
				t.Errorf("%s: %q is %v (%v), want %v", name, c[1], got, err, alone)
			}
		}
	}
}

func TestAMergeAcrossTheBorderTakesAnotherHead(t *testing.T) {
	tok := open(t, with(t, "sentencepiece", nil))
	for _, c := range [][2]string{{"so", "up was"}, {"th", "e"}, {"x ", "good"}, {" ", " good"}} {
		got, err := tok.EncodeAfter(c[0], c[1])
		want, wantErr := tok.EncodeAfter("\n", c[1])
		if err != nil || wantErr != nil || !slices.Equal(got, want) {
			t.Errorf("%q after %q is %v (%v), want %v (%v) as after a line break", c[1], c[0], got, err, want, wantErr)
		}
		if text := tok.Decode(slices.Concat([]int32{13}, got)); strings.TrimSpace(text) != strings.TrimSpace(c[1]) {
			t.Errorf("%q after %q: the ids decode to %q", c[1], c[0], text)
		}
	}
	if got, err := tok.EncodeAfter("x", ""); err != nil || len(got) != 0 {
		t.Errorf("the empty text is %v (%v), want none", got, err)
	}
	if _, err := tok.EncodeAfter("x", "a\x00"); err == nil || !strings.Contains(err.Error(), "NUL byte") {
		t.Errorf("error is %v, want one about the NUL byte", err)
	}
	words := `{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
		"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
		"model": {"type": "WordLevel", "vocab": {"▁good": 0, "?": 1}, "unk_token": "?"}}`
	whole := open(t, fstest.MapFS{"tokenizer.json": {Data: []byte(words)}})
	if got, err := whole.EncodeAfter("no", "good"); err != nil || !slices.Equal(got, []int32{0}) {
		t.Errorf("a word of a tokenizer of whole words is %v (%v), want [0] as alone", got, err)
	}
}

// FuzzATargetDecodesBehindItsInput looks for targets whose ids, behind the input's, are not the text.
func FuzzATargetDecodesBehindItsInput(f *testing.F) {
	for _, c := range continuations {
		f.Add(c[0], c[1])
	}
	data, err := os.ReadFile(filepath.Join(dir, "sentencepiece", "tokenizer.json"))
	if err != nil {
		f.Fatal(err)
	}
	tok, err := OpenFS("m", fstest.MapFS{"tokenizer.json": {Data: data}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, head, text string) {
		if !utf8.ValidString(head) || !utf8.ValidString(text) {
			return
		}
		got, err := tok.EncodeAfter(head, text)
		if err != nil || strings.Contains(text, "<") || strings.Contains(text, "▁") {
			return // special tokens have no text, and the mark of a space is one
		}
		if all := tok.Decode(slices.Concat(tok.call("x", false), got)); all != "x"+text {
			t.Errorf("%q after %q is %v: behind x it is %q", text, head, got, all)
		}
	})
}
