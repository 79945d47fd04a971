package run

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/data"
	"ptune/internal/infer"
	"ptune/internal/model"
	"ptune/internal/prompt"
)

// The scores of labels are compared with their definition: the mean of −log p over the tokens of each
// label. Few labels are scored in one pass, many in a search.
func TestMeanScoresOfLabelsAreThoseOfTheirDefinition(t *testing.T) {
	text, err := os.ReadFile("../demo/data/test.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rows.jsonl")
	var texts []string
	var rows strings.Builder
	for _, line := range strings.SplitAfter(string(text), "\n")[:12] {
		var row struct{ Text string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, row.Text)
		fmt.Fprintf(&rows, "{\"text\": %q, \"sentiment\": \"good\"}\n", row.Text)
	}
	if err := os.WriteFile(file, []byte(rows.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	few := []string{"late", "the soup was cold and the waiters were rude", "good"}
	many := []string{"good"}
	for _, a := range []string{"very", "quite", "hardly", "not", "never"} {
		for _, b := range []string{"clean", "warm", "rude", "late", "dull", "fine and cheap"} {
			many = append(many, a+" "+b)
		}
	}
	for _, labels := range [][]string{few, many} {
		b, members := sentiment(t, 1, func(m *prompt.Meta) {
			m.Labels, m.LabelScores = prompt.ParseLabels(labels), data.ScoreMean
		})
		p := members[0]
		evals, err := EvaluatePrompts(t.Context(), b, members, file)
		if err != nil {
			t.Fatal(err)
		}
		e := evals[0]
		var ids [][]int32
		for _, c := range e.choices {
			ids = append(ids, c.IDs)
		}
		ends := infer.LabelEnds(ids, e.eos)
		var questions []infer.Question
		for _, row := range e.Set.Rows {
			questions = append(questions, infer.Question{Input: row.Input, Ends: ends})
		}
		scores, err := infer.Score(b, p.Values, []int{p.Rows}, questions)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.Measure(t.Context(), MeasureOptions{MaxTokens: 4096, NoBaseline: true, Probabilities: true})
		if err != nil {
			t.Fatal(err)
		}
		quick, err := e.Measure(t.Context(), MeasureOptions{MaxTokens: 4096, NoBaseline: true})
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewClassifier(b, members, 4096)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := classifiedLines(c, file, nil)
		if err != nil {
			t.Fatal(err)
		}
		decoder := b.NewDecoder(model.NoCacheLimit)
		defer decoder.Close()
		g := infer.NewGenerator(infer.New(decoder, infer.Options{
			Decode: b.Tokenizer.Decode, Scorer: b, Trees: decoder, ScoreTokens: 4096,
		}), infer.Request{})
		defer g.Close()
		if err := g.Add(p.Prompt, b, b.Tokenizer, true, true); err != nil {
			t.Fatal(err)
		}
		var generated []string
		err = g.Run(t.Context(), infer.Known(infer.Texts(texts)), 4, nil, func(a infer.Answer) error {
			generated = append(generated, strings.TrimSpace(a.Results[0].Text))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		others := 0 // rows for which the sum predicts another label
		for i := range e.Set.Rows {
			means, sums, total := make([]float64, len(ends)), make([]float64, len(ends)), 0.0
			for l, s := range scores[i] {
				sums[l], means[l] = s.NLL, s.NLL/float64(len(ends[l]))
				total += math.Exp(-means[l])
			}
			want := infer.Likeliest(means)
			if infer.Likeliest(sums) != want {
				others++
			}
			probability := math.Exp(-means[want]) / total
			if res.Predicted[i] != want || quick.Predicted[i] != want ||
				!(math.Abs(res.Probabilities[i][want]-probability) < 1e-4) {
				t.Errorf("%d labels, row %d: predicted %d and %d with probability %g, want %d with %g", len(labels), i,
					res.Predicted[i], quick.Predicted[i], res.Probabilities[i][want], want, probability)
			}
			if name := labels[want]; !strings.Contains(lines[i], fmt.Sprintf(`"predicted":%q`, name)) ||
				generated[i] != name {
				t.Errorf("%d labels, row %d: classified as %s, generated %q, want %q", len(labels), i, lines[i],
					generated[i], name)
			}
		}
		if others == 0 {
			t.Errorf("%d labels: the sum predicts the same for all rows, so the test shows nothing", len(labels))
		}
	}
}
