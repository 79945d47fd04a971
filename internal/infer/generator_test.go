package infer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/chat"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// bytesAsTokens is a tokenizer whose ids are bytes. It refuses a text that contains "bad".
type bytesAsTokens struct{}

func (bytesAsTokens) EncodeAfter(_, text string) ([]int32, error) {
	return bytesAsTokens{}.Encode(text)
}

func (bytesAsTokens) Encode(text string) (ids []int32, err error) {
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	if strings.Contains(text, "bad") {
		err = errors.New("bad text")
	}
	return ids, err
}

func (t bytesAsTokens) EncodeInput(text string) ([]int32, error) { return t.Encode(text) }

func (bytesAsTokens) Decode(ids []int32) string { return decode(ids) }

func (bytesAsTokens) ChatOf(string) (*chat.Template, error) { return nil, nil }

// echoes continues each text with the text itself. It has room for texts of 40 tokens.
type echoes struct{ *speller }

func (e *echoes) Check(t batch.Text) error {
	if len(t.IDs) > 40 {
		return errors.New("too long")
	}
	return nil
}

func (e *echoes) Add(texts []batch.Text) ([]int, [][]float32, error) {
	for _, t := range texts {
		e.says = append(e.says, decode(t.IDs))
	}
	return e.speller.Add(texts)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// echo returns a generator whose texts are those of the inputs, with a prompt of this metadata if there
// is one.
func echo(t *testing.T, o Options, common Request, m *prompt.Meta) *Generator {
	t.Helper()
	o.Decode = decode
	common.EOS = []int32{0}
	g := NewGenerator(New(&echoes{speller: newSpeller()}, o), common)
	var p *prompt.Prompt
	if m != nil {
		p = &prompt.Prompt{Meta: *m, Values: []float32{1}, Rows: 1, Dim: 1}
	}
	if err := g.Add(p, bytesAsTokens{}, bytesAsTokens{}, true, m != nil); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestLinesAreAnsweredAsTheyComeAndInTheirPlace(t *testing.T) {
	r, w := io.Pipe()
	g := echo(t, Options{}, Request{MaxTokens: 20}, nil)
	answers := make(chan Answer)
	done := make(chan error)
	go func() {
		done <- g.Run(context.Background(), Lines(t.Context(), data.TextLines(r, "stdin", "text"), true, 4), 4, nil, func(a Answer) error {
			answers <- a
			return nil
		})
	}()
	for _, line := range []string{"one", "", "two", " \t", "three"} { // each waits for the answer before it
		if _, err := io.WriteString(w, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		a, want, reason := <-answers, strings.TrimSpace(line), FinishEOS
		if want == "" {
			reason = FinishBlank
		}
		if a.Text != line || a.Results[0].Text != want || a.Results[0].FinishReason != reason {
			t.Errorf("line %q: answered %+v", line, a)
		}
	}
	w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What comes before an input that is refused is answered, and the error names its line.
func TestAnInputThatIsRefusedEndsTheAnswersAfterIt(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\n\nbad\nc\n":                   "stdin:4: bad text",
		"a\nb\n\n" + strings.Repeat("x", 50): "stdin:4: too long",
		"":                                   "there is no text in stdin",
	} {
		got := ""
		g := echo(t, Options{Texts: 2}, Request{MaxTokens: 20}, nil)
		err := g.Run(context.Background(), Lines(t.Context(), data.TextLines(strings.NewReader(text), "stdin", "text"), true, 2), 3, nil,
			func(a Answer) error {
				got += a.Results[0].Text
				return nil
			})
		if err == nil || err.Error() != want || !failure.IsUsage(err) || text != "" && got != "ab" {
			t.Errorf("%.10q: answered %q, error %v, want ab and %s", text, got, err, want)
		}
	}
}

func TestCheckListsAllInputsThatAreRefused(t *testing.T) {
	g := echo(t, Options{}, Request{MaxTokens: 20}, nil)
	err := g.Check(t.Context(), Texts([]string{"a", "bad", "b", strings.Repeat("x", 50)}))
	if want := "text 2: bad text\ntext 4: too long"; err == nil || err.Error() != want || !failure.IsUsage(err) {
		t.Errorf("error is %v, want %s", err, want)
	}
	many := g.Check(t.Context(), Texts(strings.Split(strings.Repeat("bad ", 30), " ")))
	if many == nil || many.Error() != "text 1: bad text (and 29 more: text 2, text 3, text 4, …)" {
		t.Errorf("error is %v", many)
	}
	if err := g.Check(t.Context(), Texts([]string{"a", "b"})); err != nil {
		t.Error(err)
	}
}

func TestRowsOfAFileAreReadWithAllMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"rows.csv":   "text,label\nx,1\n\"y\nz\",2\n",
		"rows.jsonl": "{\"text\":\"x\",\"label\":1}\n\n{\"text\":\"y\\nz\",\"label\":2}\n",
	} {
		path := filepath.Join(dir, name)
		write(t, path, content)
		rows, _, err := Rows(data.Source{Path: path}, nil)
		if err != nil || len(rows) != 2 || rows[1].Fields["text"].Text != "y\nz" || rows[1].Place != path+":3" {
			t.Errorf("%s: rows are %v (%v)", name, rows, err)
		}
	}
	path := filepath.Join(dir, "broken.jsonl")
	write(t, path, "{\"a\":1}\n{\n{\"b\":1}\n[\n")
	_, _, err := Rows(data.Source{Path: path}, nil)
	if err == nil || !failure.IsUsage(err) || strings.Count(err.Error(), path) != 2 ||
		!strings.Contains(err.Error(), path+":2: ") || !strings.Contains(err.Error(), path+":4: ") {
		t.Errorf("error is %v, want both broken lines", err)
	}
}

// However many inputs are answered at a time, each gets the same text, also with random tokens.
func TestAnswersDoNotDependOnHowManyAreGivenAtATime(t *testing.T) {
	texts := strings.Split("the soup was cold and so were the waiters who brought it", " ")
	want := ""
	for _, ahead := range []int{1, 3, 50} {
		got := ""
		g := echo(t, Options{Texts: ahead}, Request{MaxTokens: 30,
			Sampling: Sampling{Temperature: 1.5, Seed: 3}}, nil)
		err := g.Run(context.Background(), Known(Texts(texts)), ahead, nil, func(a Answer) error {
			got += a.Input.Text + ": " + a.Results[0].Text + "\n"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%d at a time:\n%s\nwant\n%s", ahead, got, want)
		}
	}
	if strings.Contains(want, "the: the\n") {
		t.Error("nothing was drawn")
	}
}

func TestOnlyThePiecesOfATextThatNothingWaitsForAreShown(t *testing.T) {
	got := ""
	g := echo(t, Options{}, Request{MaxTokens: 30}, nil)
	err := g.Run(context.Background(), Known(Texts([]string{"one", "two"})), 2,
		func(piece string) { got += piece },
		func(a Answer) error {
			if got += "|"; !a.Shown {
				got += a.Results[0].Text
			}
			return nil
		})
	if err != nil || got != "one||two" {
		t.Errorf("shown and answered %q (%v), want one||two", got, err)
	}
}

func TestOnlyLabelsAreGenerated(t *testing.T) {
	m := &prompt.Meta{Input: "{text}", Target: "{label}", EOS: 0,
		Labels: prompt.ParseLabels([]string{"cosy", "cold", "warm"})}
	for _, temperature := range []float64{0, 1e-3, 50} {
		g := echo(t, Options{Scorer: &unlikely{}, ScoreTokens: 40}, Request{MaxTokens: 2,
			Sampling: Sampling{Temperature: temperature, TopP: 1}}, m)
		seen := map[string]int{}
		err := g.Run(context.Background(), Known(Texts(make([]string, 60))), 7, nil, func(a Answer) error {
			if r := a.Results[0]; r.Text != decode(r.IDs) || r.FinishReason != FinishLabel {
				t.Errorf("result is %+v", r)
			}
			seen[a.Results[0].Text]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// The ids of cold add up to the least.
		if temperature < 1 && seen["cold"] != 60 || seen["cold"]+seen["cosy"]+seen["warm"] != 60 ||
			temperature > 1 && len(seen) != 3 {
			t.Errorf("temperature %g: generated %v", temperature, seen)
		}
	}
}

func TestTheEndOfTheContextEndsLinesThatNobodyReceives(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	inputs := Lines(ctx, data.TextLines(strings.NewReader("a\nb\nc\nd\n"), "stdin", "text"), true, 1)
	<-inputs
	stop()
	n := 0
	for range inputs { // until it is closed
		n++
	}
	if n > 2 {
		t.Errorf("%d lines came after the end, want at most those that were read", n)
	}
}
