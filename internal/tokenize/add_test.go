package tokenize

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAddedTokensDoNotChangeTheIdsOfTheText(t *testing.T) {
	for _, name := range []string{"byte-level", "byte-level-bos", "sentencepiece",
		"sentencepiece-no-bos", "byte-level-nfc", "byte-level-added", "unigram", "metaspace-first",
		"metaspace-never"} {
		from, to := filepath.Join(dir, name), t.TempDir()
		x, err := AddTokens(from, []string{"<|a|>", "<|b|>"})
		if err != nil {
			t.Fatal(err)
		}
		files, err := x.Files()
		if err != nil {
			t.Fatal(err)
		}
		for file, data := range files {
			if err := os.WriteFile(filepath.Join(to, file), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		old, err := Open(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		now, err := Open(to, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer now.Close()
		for _, text := range []string{"It was good, we said.", "café 12"} {
			ids, err := old.EncodeInput(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := now.Encode(x.Prefix + text)
			if want := append([]int32{x.First, x.First + 1}, ids...); err != nil ||
				!slices.Equal(got, want) {
				t.Errorf("%s: ids of %q are %v (%v), want %v", name, x.Prefix+text, got, err, want)
			}
			plain, err := now.EncodeInput(text)
			if err != nil || !slices.Equal(plain, ids) {
				t.Errorf("%s: ids of %q alone are %v (%v), want %v as without new tokens",
					name, text, plain, err, ids)
			}
		}
		for i, token := range []string{"<|a|>", "<|b|>"} {
			if id, ok := now.ID(token); !ok || id != x.First+int32(i) {
				t.Errorf("%s: %s has id %d (%v) in the file, want %d", name, token, id, ok, x.First+int32(i))
			}
		}
		if now.Ordinary(x.First) || now.Decode([]int32{x.First}) != "" {
			t.Errorf("%s: the new token is ordinary or decodes to text", name)
		}
	}
	empty := t.TempDir()
	all := `{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}`
	if err := os.WriteFile(filepath.Join(empty, "tokenizer.json"), []byte(all), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := AddTokens(empty, []string{"<s>"}); err == nil || !strings.Contains(err.Error(), "texts have other ids") {
		t.Errorf("a tokenizer without added tokens that cannot encode: error is %v", err)
	}
	if _, err := AddTokens(filepath.Join(dir, "sentencepiece"), []string{"<s>"}); err == nil ||
		!strings.Contains(err.Error(), `it already has a token "<s>"`) {
		t.Errorf("error is %v, want one that names the token", err)
	}
}
