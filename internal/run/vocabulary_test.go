package run

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/config"
)

// small writes a base model of 99 tokens: the letters, space and fillers, and after them "[PAD]" with
// id 99, for which the model has no embedding. A text begins with the id bos unless that is negative; eos
// is the eos_token_id of config.json.
func small(t testing.TB, bos int, eos string) string {
	t.Helper()
	dir := t.TempDir()
	vocab := map[string]int{}
	for i := range 99 {
		if i <= 'z'-'a' {
			vocab[string(rune('a'+i))] = i
		} else {
			vocab[fmt.Sprintf("filler %d", i)] = i
		}
	}
	post := any(nil)
	if bos >= 0 {
		one := map[string]any{"SpecialToken": map[string]any{"id": "<s>", "type_id": 0}}
		text := map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}
		post = map[string]any{"type": "TemplateProcessing", "single": []any{one, text}, "pair": []any{text},
			"special_tokens": map[string]any{
				"<s>": map[string]any{"id": "<s>", "ids": []int{bos}, "tokens": []string{"<s>"}},
			}}
	}
	tokenizer, err := json.Marshal(map[string]any{
		"version": "1.0", "normalizer": nil, "pre_tokenizer": nil, "decoder": nil, "post_processor": post,
		"added_tokens": []any{map[string]any{"id": 99, "content": "[PAD]", "single_word": false,
			"lstrip": false, "rstrip": false, "normalized": false, "special": true}},
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": []any{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "../../testdata/golden/llama-gqa-tied-f32"
	for name, change := range map[string]func([]byte) []byte{
		"config.json": func(data []byte) []byte {
			return []byte(strings.Replace(string(data), `"eos_token_id": 2`, `"eos_token_id": `+eos, 1))
		},
		"model.safetensors": func(data []byte) []byte { return data },
	} {
		data, err := os.ReadFile(filepath.Join(golden, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), change(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), tokenizer, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestATokenBeyondTheVocabularyIsAnErrorThatNamesItsKey(t *testing.T) {
	dir := small(t, -1, "2")
	b, err := base.Open(dir, base.Options{Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	err = os.WriteFile(rows, []byte(`{"text": "ab", "label": "good"}`+"\n"+`{"text": "b[PAD]", "label": "bad"}`+"\n"),
		0o644)
	if err != nil {
		t.Fatal(err)
	}
	task := filepath.Join(t.TempDir(), "task.yaml")
	err = os.WriteFile(task, []byte(`model: `+dir+`
prompt: {tokens: 4, init: text, text: abc}
data: {train: `+rows+`, input: "fixed", target: "{label}", labels: [good, bad]}
train: {steps: 1}
output: {prompt: p.st}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for key, set := range map[string][]string{
		"prompt.text":                 {"prompt.text=a[PAD]"},
		"prompt.anchor_text":          {"prompt.anchor_text=[PAD]", "prompt.anchor=0.1"},
		`data.labels: label "ba[PAD]`: {"data.labels={good: good, bad: 'ba[PAD]'}", "prompt.init=labels"},
		"rows.jsonl:2: input":         {"data.input={text}"},
		"rows.jsonl:1: target":        {"data.target=[PAD]{label}", "data.labels=[]"},
	} {
		open, err := config.Load(task, set)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), open, b, "test")
		const want = `the tokenizer gives "[PAD]" the id 99, but the model's vocabulary has 99 tokens (0 to 98)`
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error is %v, want one with %q and %q", set, err, key, want)
		}
	}
	open, err := config.Load(task, []string{"prompt.init=vocab"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), open, b, "test"); err != nil {
		t.Errorf("a task without such a token: %v", err)
	}
}

func TestBOSAndEOSBeyondTheVocabularyAreErrors(t *testing.T) {
	const want = `BOS): the tokenizer gives "" the id 600, but the model's vocabulary has 99 tokens (0 to 98)`
	if _, err := base.Open(small(t, 600, "2"), base.Options{Trusted: true}); err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("BOS: error is %v, want one with %q", err, want)
	}
	for _, id := range []string{"99", "-1"} {
		b, err := base.Open(small(t, 98, id), base.Options{Trusted: true})
		if err != nil {
			t.Fatal(err)
		}
		want := "eos_token_id is " + id + ", but the vocabulary has 99 tokens (0 to 98)"
		if _, err := b.EndToken(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("EOS: error is %v, want one with %q", err, want)
		}
		b.Close()
	}
}

// FuzzATextIsEncodedInTheVocabularyOrRefused changes the tokenizer of a model, not only the text: fuzzing
// tokenizer.json alone or texts with a tokenizer that fits its model cannot find ids beyond the vocabulary.
func FuzzATextIsEncodedInTheVocabularyOrRefused(f *testing.F) {
	f.Add(-1, "2", "a [PAD] b")
	f.Add(600, "2", "a")
	f.Add(98, "99", "abc")
	f.Add(0, "[2, 600]", "[PAD]")
	f.Fuzz(func(t *testing.T, bos int, eos, text string) {
		if bos > 1<<21 {
			return // the library reads any number below 2³²
		}
		var ids any
		if json.Unmarshal([]byte(eos), &ids) != nil {
			return
		}
		b, err := base.Open(small(t, bos, eos), base.Options{Trusted: true, Threads: 1})
		if err != nil {
			return
		}
		defer b.Close()
		if id, err := b.EndToken(); err == nil {
			b.EmbeddingRow(int(id))
		}
		for _, encode := range []func(string) ([]int32, error){b.Tokenizer.Encode, b.Tokenizer.EncodeInput} {
			if ids, err := encode(text); err == nil {
				for _, id := range ids {
					b.EmbeddingRow(int(id))
				}
			}
		}
	})
}
