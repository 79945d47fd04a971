package run

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// sentiment returns the demo's base, and prompts of its sentiment task with random values.
func sentiment(t *testing.T, prompts int, tune func(*prompt.Meta)) (*base.Base, []base.Prompt) {
	t.Helper()
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	var all []base.Prompt
	for k := range prompts {
		p := &prompt.Prompt{Rows: 2 + k, Meta: prompt.Meta{
			Input: "{text}\nAnswer:", Target: " {sentiment}", EOS: b.EOS[0],
			Labels: prompt.ParseLabels([]string{"negative", "positive", "mixed"}),
		}}
		for i := range p.Rows * b.Hidden {
			p.Values = append(p.Values, float32(math.Sin(float64(i*(k+3))))/10)
		}
		if tune != nil {
			tune(&p.Meta)
		}
		all = append(all, base.Prompt{Prompt: p, Path: "p.st"})
	}
	return b, all
}

// Labels and probabilities are those that eval writes as samples, for a prompt and for an ensemble, from a
// file and from a stream.
func TestClassifiedRowsAreThoseOfAnEvaluation(t *testing.T) {
	ctx := context.Background()
	text, err := os.ReadFile("../demo/data/test.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	some := strings.Join(strings.SplitAfter(string(text), "\n")[:30], "")
	file := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(file, []byte(some), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, prompts := range []int{1, 3} {
		b, members := sentiment(t, prompts, nil)
		evals, err := EvaluatePrompts(t.Context(), b, members, file)
		if err != nil {
			t.Fatal(err)
		}
		set := evals[0].Set
		want, err := evals[0].Measure(ctx, MeasureOptions{
			MaxTokens: 4096, NoBaseline: true, Probabilities: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, stream := range []bool{false, true} {
			var in io.Reader
			path := file
			if stream {
				in, path = strings.NewReader(some), data.Stdin
			}
			c, err := NewClassifier(b, members, 4096)
			if err != nil {
				t.Fatal(err)
			}
			got, err := classifiedLines(c, path, in)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(set.Rows) {
				t.Fatalf("%d rows, want %d", len(got), len(set.Rows))
			}
			for i, line := range got {
				compareSample(t, line, evals[0], want, i)
			}
		}
	}
}

// compareSample compares a row that was written with what was measured of row i.
func compareSample(t *testing.T, line string, e *Evaluation, want eval.Evaluation, i int) {
	t.Helper()
	var got struct {
		Text, Sentiment, Predicted string
		Probability                float64
		RunnerUp                   string  `json:"runner_up"`
		Second                     float64 `json:"runner_up_probability"`
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatal(err)
	}
	second := -1
	for l, p := range want.Probabilities[i] {
		if l != want.Predicted[i] && (second < 0 || p > want.Probabilities[i][second]) {
			second = l
		}
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-5 } // six digits are written
	if p := want.Predicted[i]; got.Predicted != e.choices[p].Name || got.RunnerUp != e.choices[second].Name ||
		!near(got.Probability, want.Probabilities[i][p]) ||
		!near(got.Second, want.Probabilities[i][second]) ||
		got.Text+"\nAnswer:" != e.Set.Rows[i].Text || got.Sentiment == "" {
		t.Errorf("row %d: %s, want %s of %v", i+1, line, e.choices[p].Name, want.Probabilities[i])
	}
}

// classifiedLines returns what a classifier writes for rows.
func classifiedLines(c *Classifier, path string, in io.Reader) ([]string, error) {
	rows, err := c.Source(context.Background(), path).Records(in, c.Fields)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	err = c.Run(context.Background(), rows, nil, func(some []data.Record, values [][]data.Value) error {
		for i, r := range some {
			if err := rows.Write(&b, r, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if b.Len() == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"), err
}

// Each row of a stream is answered before the next one comes.
func TestARowOfAStreamIsAnsweredAsItComes(t *testing.T) {
	b, members := sentiment(t, 1, nil)
	c, err := NewClassifier(b, members, 4096)
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	go io.WriteString(out, "fine\n")
	rows, err := c.Source(t.Context(), data.Stdin).Records(in, c.Fields)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"\n", "cold\n"}
	var got []string
	err = c.Run(context.Background(), rows, nil, func(some []data.Record, _ [][]data.Value) error {
		for _, r := range some {
			got = append(got, r.Place)
		}
		if len(lines) == 0 {
			return out.Close()
		}
		go io.WriteString(out, lines[0])
		lines = lines[1:]
		return nil
	})
	if err != nil || strings.Join(got, " ") != "standard input:1 standard input:2 standard input:3" {
		t.Errorf("rows %v (%v), want three lines one after the other", got, err)
	}
}

func TestRowsBeforeAMistakeInAStreamAreAnswered(t *testing.T) {
	b, members := sentiment(t, 1, nil)
	for text, want := range map[string]string{
		`{"text":"a"}` + "\n" + `{"tex":"b"}` + "\n": `standard input:2: no field "text"`,
		`{"text":"a"}` + "\n\n" + `{"text":`:         "standard input:3: not JSON",
		`{"text":"a"}` + "\n" + `{"text":"b","runner_up":1}`: `standard input:2: the row has a field ` +
			`"runner_up" already`,
		`{"text":"a"}` + "\n" + `{"text":"` + strings.Repeat("word ", 3000) + `"}`: "tokens, want at most",
	} {
		c, err := NewClassifier(b, members, 4096)
		if err != nil {
			t.Fatal(err)
		}
		got, err := classifiedLines(c, data.Stdin, strings.NewReader(text))
		if err == nil || !failure.IsUsage(err) || !strings.Contains(err.Error(), want) || len(got) != 1 {
			t.Errorf("%.60q: %d rows (%v), want one and %q", text, len(got), err, want)
		}
	}
}

func TestLongInputsAreCutIfTheTaskSaysSo(t *testing.T) {
	b, members := sentiment(t, 1, func(m *prompt.Meta) {
		m.MaxTokens, m.OnTooLong = 40, data.TooLongCutInput
	})
	c, err := NewClassifier(b, members, 4096)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("word ", 3000)
	got, err := classifiedLines(c, data.Stdin, strings.NewReader(text))
	if err != nil || len(got) != 1 || !strings.HasSuffix(got[0], "\t"+text) {
		t.Errorf("%d rows (%v), want one with the whole text", len(got), err)
	}
}

func TestAPromptWithoutLabelsCannotClassify(t *testing.T) {
	b, members := sentiment(t, 1, func(m *prompt.Meta) { m.Labels = nil })
	_, err := NewClassifier(b, members, 4096)
	if err == nil || !strings.Contains(err.Error(), "p.st has no labels") ||
		!strings.Contains(failure.HintOf(err), "generate") {
		t.Errorf("error is %v (%s)", err, failure.HintOf(err))
	}
}
