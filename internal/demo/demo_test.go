package demo_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"ptune/internal/demo"
)

func rows(t *testing.T, name string) []map[string]string {
	t.Helper()
	data, err := fs.ReadFile(demo.Data(), name)
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		row := map[string]string{}
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	return out
}

// sentences returns the sentences of a text in lower case, without punctuation around them.
func sentences(text string) []string {
	var out []string
	end := func(r rune) bool { return strings.ContainsRune(".!?", r) }
	for _, s := range strings.FieldsFunc(strings.ToLower(text), end) {
		s = strings.TrimSuffix(strings.TrimSuffix(s, " lol"), " :)")
		if s = strings.Trim(s, " "); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func TestNoSentenceOfTheTestRowsIsInAnotherRow(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"train.jsonl", "valid.jsonl"} {
		for _, r := range rows(t, name) {
			for _, s := range sentences(r["text"]) {
				seen[s] = true
			}
		}
	}
	test := rows(t, "test.jsonl")
	count := map[string]int{}
	for _, r := range test {
		count[r["sentiment"]]++
		for _, s := range sentences(r["text"]) {
			if seen[s] {
				t.Errorf("%q is in a training or validation row", s)
			}
		}
	}
	if len(test) != 400 || len(seen) < 500 || count["positive"] != 200 || count["negative"] != 200 {
		t.Errorf("%d test rows %v, %d other sentences", len(test), count, len(seen))
	}
}

func TestTheBaseIsSmallAndModelsItsText(t *testing.T) {
	weights, err := fs.Stat(demo.Base(), "model.safetensors")
	if err != nil || weights.Size() > 6<<20 {
		t.Errorf("the base has %d bytes (%v), want at most 6 MB", weights.Size(), err)
	}
	data, err := fs.ReadFile(demo.Base(), "about.json")
	if err != nil {
		t.Fatal(err)
	}
	var about struct {
		Perplexity float64 `json:"perplexity"`
		Trigram    float64 `json:"trigram_perplexity"`
		Unigram    float64 `json:"unigram_perplexity"`
	}
	if err := json.Unmarshal(data, &about); err != nil {
		t.Fatal(err)
	}
	if !(about.Perplexity < about.Trigram && about.Trigram < about.Unigram) {
		t.Errorf("perplexities are %+v, want the base's below a trigram's below a unigram's", about)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("perplexity of %.2f on held-out text; a trigram model has %.2f, a unigram "+
		"model %.0f",
		about.Perplexity, about.Trigram, about.Unigram)
	if !strings.Contains(strings.Join(strings.Fields(string(readme)), " "), want) {
		t.Errorf("the README does not have %q from about.json", want)
	}
}
