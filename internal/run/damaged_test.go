package run

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/model"
)

func TestAPromptThatGivesNaNIsAnErrorWhateverItIsUsedFor(t *testing.T) {
	b, members := sentiment(t, 1, nil)
	p := members[0]
	p.Values[0] = float32(math.NaN())
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(`{"text":"good","sentiment":"positive"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	measure := func() error {
		evals, err := EvaluatePrompts(t.Context(), b, members, path)
		if err == nil {
			_, err = evals[0].Measure(t.Context(), MeasureOptions{MaxTokens: 4096, NoBaseline: true})
		}
		return err
	}
	generate := func(labels bool) error {
		g := infer.NewGenerator(infer.New(b.NewDecoder(model.NoCacheLimit), infer.Options{
			Decode: b.Tokenizer.Decode, Scorer: b, ScoreTokens: 4096,
		}), infer.Request{MaxTokens: 3, EOS: b.EOS})
		if err := g.Add(p.Prompt, b, b.Tokenizer, true, labels); err != nil {
			return err
		}
		return g.Run(t.Context(), infer.Known(infer.Texts([]string{"good"})), 1, func(string) {},
			func(a infer.Answer) error {
				t.Errorf("a text was generated: %+v", a)
				return nil
			})
	}
	classify := func() error {
		c, err := NewClassifier(b, members, 4096)
		if err == nil {
			_, err = classifiedLines(c, path, nil)
		}
		return err
	}
	errs := map[string]error{
		"eval of labels": measure(), "generate": generate(false), "generate a label": generate(true),
		"classify": classify(),
	}
	p.Meta.Labels = nil
	errs["eval of free text"] = measure()
	for what, err := range errs {
		if err == nil || !failure.IsUsage(err) || !strings.Contains(err.Error(), "the prompt or the base is damaged") {
			t.Errorf("%s: the error is %v", what, err)
		}
	}
}
