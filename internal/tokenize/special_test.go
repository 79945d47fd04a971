package tokenize

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// with returns a tokenizer of testdata with other files beside its tokenizer.json.
func with(t *testing.T, name string, files map[string]string) fstest.MapFS {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	fs := fstest.MapFS{"tokenizer.json": {Data: data}}
	for file, text := range files {
		fs[file] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

func open(t *testing.T, fs fstest.MapFS) *Tokenizer {
	t.Helper()
	tok, err := OpenFS("m", fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

// The goldens of added-in-… compare the ids of texts with transformers.

func TestSpecialTokensAreThoseOfTransformers(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  map[string]string
	}{
		"strings and objects": {
			map[string]string{"tokenizer_config.json": `{"bos_token": "<s>", "pad_token": null, "unk_token": 7,
				"eos_token": {"__type": "AddedToken", "content": "</s>"}, "image_token": "<i>"}`},
			map[string]string{"bos_token": "<s>", "eos_token": "</s>", "image_token": "<i>"},
		},
		"the map before the config": {
			map[string]string{
				"tokenizer_config.json":   `{"bos_token": "a", "unk_token": "<unk>"}`,
				"special_tokens_map.json": `{"bos_token": "<s>", "eos_token": {"content": "</s>"}}`,
			},
			map[string]string{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
		},
		"only the map": {
			map[string]string{"special_tokens_map.json": `{"bos_token": "<s>"}`},
			map[string]string{"bos_token": "<s>"},
		},
		"no map beside added_tokens_decoder": {
			map[string]string{
				"tokenizer_config.json":   `{"eos_token": "</s>", "added_tokens_decoder": {}}`,
				"special_tokens_map.json": `{"bos_token": "<s>"}`,
			},
			map[string]string{"eos_token": "</s>"},
		},
		"extra tokens with names": {
			map[string]string{"tokenizer_config.json": `{"extra_special_tokens": {"video_token": "<v>"}}`},
			map[string]string{"video_token": "<v>"},
		},
	} {
		if got := open(t, with(t, "sentencepiece", c.files)).Special; !maps.Equal(got, c.want) {
			t.Errorf("%s: the tokens are %v, want %v", name, got, c.want)
		}
	}
}

func TestOnlyChangedIdsChangeTheHash(t *testing.T) {
	plain := open(t, with(t, "sentencepiece", nil))
	for name, c := range map[string]struct {
		config  string
		changed bool
	}{
		"the same tokens":       {`{"bos_token": "<s>", "eos_token": "</s>"}`, false},
		"a token of new id":     {`{"pad_token": "[PAD]"}`, false},
		"BOS obeyed by both":    {`{"bos_token": "<s>", "add_bos_token": true}`, false},
		"another BOS":           {`{"bos_token": "</s>", "add_bos_token": false}`, false},
		"a piece made special":  {`{"pad_token": "w"}`, true},
		"a token that strips":   {`{"added_tokens_decoder": {"1": {"content": "<s>", "lstrip": true, "special": true}}}`, true},
		"a token only shown":    {`{"added_tokens_decoder": {"1": {"content": "<s>", "normalized": false, "special": false}}}`, false},
		"add_bos_token":         {`{"bos_token": "<s>", "add_bos_token": false}`, true},
		"a class without BOS":   {`{"tokenizer_class": "GPTNeoXTokenizerFast"}`, true},
		"add_bos_token, no BOS": {`{"add_bos_token": false}`, false},
	} {
		tok := open(t, with(t, "sentencepiece", map[string]string{"tokenizer_config.json": c.config}))
		if (tok.Hash != plain.Hash) != c.changed {
			t.Errorf("%s: the hash is %s beside %s, want a change: %v", name, tok.Hash, plain.Hash, c.changed)
		}
	}
}

func TestBOSIsThatOfTokenizerJSON(t *testing.T) {
	for config, want := range map[string][]int32{
		`{"bos_token": "<s>", "add_bos_token": false}`:                              {1},
		`{"bos_token": "</s>", "add_bos_token": true}`:                              {1},
		`{"bos_token": "<s>", "tokenizer_class": "GPTNeoXTokenizer"}`:               nil,
		`{"bos_token": "<s>", "tokenizer_class": "GPT2Tokenizer"}`:                  {1},
		`{"add_bos_token": "yes", "tokenizer_class": 7, "added_tokens_decoder":{}}`: {1},
	} {
		tok := open(t, with(t, "sentencepiece", map[string]string{"tokenizer_config.json": config}))
		if !slices.Equal(tok.BOS, want) {
			t.Errorf("%s: BOS is %v, want %v", config, tok.BOS, want)
		}
	}
}

func TestNewTokensGetTheNextIds(t *testing.T) {
	for _, name := range []string{"sentencepiece", "byte-level-added"} { // the second has added tokens beyond its pieces
		testNewTokens(t, name)
	}
}

func testNewTokens(t *testing.T, name string) {
	tok := open(t, with(t, name, map[string]string{"tokenizer_config.json": `{
		"eos_token": "<|b|>", "bos_token": "<|a|>", "additional_special_tokens": ["<|c|>"],
		"added_tokens_decoder": {"901": {"content": "<|e|>"}, "900": {"content": "<|d|>"}}}`}))
	next := int32(0)
	for id := range tok.pieces {
		next = max(next, id+1)
	}
	for i, text := range []string{"<|d|>", "<|e|>", "<|a|>", "<|b|>", "<|c|>"} {
		want := next - 5 + int32(i)
		ids, err := tok.Encode(text)
		if id, ok := tok.ID(text); err != nil || !ok || id != want || !slices.Equal(ids, []int32{want}) {
			t.Errorf("%s has id %d and ids %v (%v), want %d", text, id, ids, err, want)
		}
	}
}

// <i> has a name of the model's own.
func TestATokenWithANameIsSpecial(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"added_tokens_decoder": {"tokenizer_config.json": `{"image_token": "<i>",
			"added_tokens_decoder": {"900": {"content": "<i>"}, "901": {"content": "<j>"}}}`},
		"added_tokens.json": {"added_tokens.json": `{"<i>": 900, "<j>": 901}`,
			"tokenizer_config.json": `{"image_token": "<i>"}`},
	} {
		tok := open(t, with(t, "sentencepiece", files))
		for text, special := range map[string]bool{"<i>": true, "<j>": false} {
			if id, ok := tok.ID(text); !ok || tok.Ordinary(id) == special {
				t.Errorf("%s: %s has id %d (%v), ordinary %v", name, text, id, ok, tok.Ordinary(id))
			}
		}
	}
}

func TestBrokenFilesBesideTokenizerJSONAreNamed(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"tokenizer_config.json: ":   {"tokenizer_config.json": `[]`},
		"special_tokens_map.json: ": {"special_tokens_map.json": `{"bos_token": `},
		"added_tokens.json: ":       {"added_tokens.json": `{"a": "b"}`},
		`tokenizer_config.json: added_tokens_decoder: token "x": `: {
			"tokenizer_config.json": `{"added_tokens_decoder": {"x": {"content": "a"}}}`},
		`tokenizer_config.json: added_tokens_decoder: token "1": `: {
			"tokenizer_config.json": `{"added_tokens_decoder": {"1": 7}}`},
	} {
		_, err := OpenFS("m", with(t, "sentencepiece", files), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error is %v, want one with %q", files, err, want)
		}
	}
}

func TestTokensOfAddedTokensJSONDoNotReplaceThoseOfTokenizerJSON(t *testing.T) {
	plain := open(t, with(t, "sentencepiece", nil))
	older := open(t, with(t, "sentencepiece", map[string]string{"added_tokens.json": `{"<s>": 1}`}))
	want, err := plain.Encode("a <s> b")
	if err != nil {
		t.Fatal(err)
	}
	got, err := older.Encode("a <s> b")
	if err != nil || !slices.Equal(got, want) || older.Hash != plain.Hash || older.Ordinary(1) {
		t.Errorf("the ids are %v (%v), hash %s; want %v, %s, and <s> special",
			got, err, older.Hash, want, plain.Hash)
	}
}
