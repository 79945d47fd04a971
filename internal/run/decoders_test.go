package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/model"
)

// The rows of the prompt and the tokens of labels count, so that a text that is too long is refused before
// the first one is answered.
func TestATextThatDoesNotFitAfterItsPromptIsFoundBeforeGeneration(t *testing.T) {
	b, members := sentiment(t, 1, nil)
	p := members[0]
	c, err := NewClassifier(b, members, 4096)
	if err != nil {
		t.Fatal(err)
	}
	longestLabel := 0
	for _, x := range c.one.choices {
		longestLabel = max(longestLabel, len(x.IDs))
	}
	for _, labels := range []bool{false, true} {
		decoder := b.NewDecoder(model.NoCacheLimit)
		defer decoder.Close()
		g := infer.NewGenerator(infer.New(decoder, infer.Options{Scorer: b, Trees: decoder, ScoreTokens: 4096}),
			infer.Request{MaxTokens: 1})
		defer g.Close()
		if err := g.Add(p.Prompt, b, b.Tokenizer, true, labels); err != nil {
			t.Fatal(err)
		}
		longest := 0 // words of a text that Check takes
		for n := 400; n < 600; n++ {
			all := infer.Texts([]string{"a", strings.Repeat("a ", n)})
			err := g.Check(t.Context(), all)
			if err == nil {
				longest = n
				continue
			}
			if !failure.IsUsage(err) || !strings.HasPrefix(err.Error(), "text 2: ") {
				t.Fatalf("labels %v: the error is %v", labels, err)
			}
			break
		}
		ids, err := b.Tokenizer.EncodeInput(strings.Repeat("a ", longest) + "\nAnswer:")
		if err != nil {
			t.Fatal(err)
		}
		n := p.Rows + len(ids)
		if labels { // the last token of a label is only predicted
			n += longestLabel - 1
		}
		if n != b.MaxPositions && n != b.MaxPositions-1 { // a word more may be two tokens
			t.Errorf("labels %v: the longest text takes %d of %d positions with its prompt", labels, n, b.MaxPositions)
		}
		answers := 0
		err = g.Run(t.Context(), infer.Known(infer.Texts([]string{strings.Repeat("a ", longest)})), 1, nil,
			func(infer.Answer) error { answers++; return nil })
		if err != nil || answers != 1 {
			t.Errorf("labels %v: %d answers to the longest text that Check takes, the error is %v", labels, answers, err)
		}
	}
}

// An exact match frees the memory of its decoder itself; the garbage collector may come late.
func TestExactMatchFreesItsDecoder(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	b, members := sentiment(t, 1, nil)
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(`{"text":"good","sentiment":"positive"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	evals, err := EvaluatePrompts(t.Context(), b, members, path)
	if err != nil {
		t.Fatal(err)
	}
	pages := func() (virtual int) {
		text, err := os.ReadFile("/proc/self/statm")
		if errors.Is(err, os.ErrNotExist) { // not Linux
			return 0
		}
		if err == nil {
			_, err = fmt.Sscan(string(text), &virtual)
		}
		if err != nil {
			t.Fatal(err)
		}
		return virtual
	}
	match := func() {
		if _, err := evals[0].answers(t.Context(), evalRows(evals[0].Set), 4096, nil); err != nil {
			t.Fatal(err)
		}
	}
	match()
	before := pages()
	for range 20 {
		match()
	}
	// A decoder maps half a terabyte, of which it uses what it needs.
	if more := pages() - before; more > 1<<24 {
		t.Errorf("20 exact matches added %d pages of memory", more)
	}
}
