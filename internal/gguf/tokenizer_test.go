package gguf

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"ptune/internal/tensorfile"
	"ptune/internal/tokenize"
)

// encode returns the ids of texts by the tokenizer.json that v makes.
func encode(t *testing.T, v *vocabulary, texts ...string) [][]int32 {
	t.Helper()
	tok, err := tokenize.OpenFS("test", memory{"tokenizer.json": v.file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	var ids [][]int32
	for _, text := range texts {
		got, err := tok.EncodeInput(text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got)
	}
	return ids
}

func TestSentencePieceMergesFollowTheScores(t *testing.T) {
	v := &vocabulary{kind: "llama", addBOS: true, prefix: true,
		named:  map[string]string{"bos_token": "<s>"},
		tokens: []string{"<unk>", "<s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "▁a", "ab", "▁ab", "  ", "<x>"},
		types:  []int64{2, 3, 6, 6, 1, 1, 1, 1, 1, 1, 4, 4},
		scores: []float32{0, 0, 0, 0, -9, -7, -8, -2, -1, -3, -4, 0}}
	got := encode(t, v, "ab", "b ab", "aé", "a<x>b")
	for i, want := range [][]int32{{1, 9}, {1, 4, 6, 9}, {1, 7, 2, 3}, {1, 7, 11, 4, 6}} {
		if !slices.Equal(got[i], want) {
			t.Errorf("text %d has the ids %v, want %v", i, got[i], want)
		}
	}
	v.prefix, v.addBOS = false, false
	if got := encode(t, v, "ab")[0]; !slices.Equal(got, []int32{8}) {
		t.Errorf("without a space and BOS before it, ab has the ids %v, want [8]", got)
	}
	merges := v.mergesByScore(map[string]int{"▁": 4, "a": 5, "b": 6, "▁a": 7, "ab": 8, "▁ab": 9})
	want := [][2]string{{"a", "b"}, {"▁", "a"}, {"▁a", "b"}, {"▁", "ab"}}
	if !slices.Equal(merges, want) {
		t.Errorf("the merges are %q, want %q", merges, want)
	}
}

func TestByteLevelBPESplitsAsItsKindDoes(t *testing.T) {
	for pre, want := range map[string][]int32{"gpt-2": {4}, "smollm": {0, 1}, "qwen2": {0, 1}, "llama-bpe": {4}} {
		v := &vocabulary{kind: "gpt2", pre: pre, tokens: []string{"1", "2", "a", "<|end|>", "12"},
			types: []int64{1, 1, 1, 3, 1}, merges: []string{"1 2"}}
		if got := encode(t, v, "12", "<|end|>"); !slices.Equal(got[0], want) ||
			!slices.Equal(got[1], []int32{3}) {
			t.Errorf("%s: 12 and the end token have the ids %v, want %v and [3]", pre, got, want)
		}
	}
}

func TestATokenizerThatIsNotReadIsRefusedByName(t *testing.T) {
	data, err := os.ReadFile("../../testdata/golden/qwen2/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for old, c := range map[string]struct{ new, want string }{
		"gpt2":  {"rwkv", `of the kind "rwkv"`},
		"gpt-2": {"gpt-9", `tokenizer.ggml.pre is "gpt-9"`},
		"qwen2": {"qwen9", `its architecture is "qwen9"`},
	} {
		g, err := tensorfile.ParseGGUF([]byte(strings.ReplaceAll(string(data), old, c.new)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := convert(g); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
	}
	g, err := tensorfile.ParseGGUF([]byte(strings.ReplaceAll(string(data), "gpt-2", "gpt-9")))
	if err != nil {
		t.Fatal(err)
	}
	g.Path = t.TempDir() + "/m.gguf"
	if err := os.WriteFile(strings.TrimSuffix(g.Path, "m.gguf")+"tokenizer.json", []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := convert(g)
	if err != nil {
		t.Fatalf("with a tokenizer.json beside the file: %v", err)
	}
	var beside map[string]any
	f, err := c.Files.Open("tokenizer.json")
	if err != nil || json.NewDecoder(f).Decode(&beside) != nil || len(beside) != 0 {
		t.Errorf("the tokenizer is %v (%v), want the file beside", beside, err)
	}
}
