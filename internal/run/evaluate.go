package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/model"
	"ptune/internal/prompt"
	"ptune/internal/report"
)

// Evaluation is rows to measure after a prompt, after each prompt of an ensemble, or after none.
type Evaluation struct {
	Set *data.Set

	base       *base.Base
	path       string    // of the prompt's file; an ensemble's are joined by commas
	text       string    // what the prompt was initialised from
	values     []float32 // of all prompts
	promptRows []int     // of each prompt
	choices    []data.Choice
	mean       bool // labels are scored by means over tokens
	eos        int32
}

// MeasureOptions are how an evaluation is measured.
type MeasureOptions struct {
	MaxTokens  int  // tokens of text computed at a time
	ExactMatch bool // also measure how many targets the model generates
	Answers    bool // with ExactMatch, also what it generates instead
	NoBaseline bool // do not measure the base without the prompt
	// Probabilities also measures the probabilities of all labels where the likeliest could be found
	// with less work. Without it, such an evaluation has no calibration error.
	Probabilities bool
	Tell          report.Func // told of the progress; nil: not called
}

// noLimit is the longest row of the base alone, or of a prompt of PEFT: only the base's positions limit it.
const noLimit = 1 << 30

// EvaluateBase returns the evaluation of the base alone on a file of rows, with the templates and labels of
// m, in the task file's form.
func EvaluateBase(ctx context.Context, b *base.Base, file string, m prompt.Meta) (*Evaluation, error) {
	var err error
	if m.EOS, err = b.EndToken(); err != nil {
		return nil, err
	}
	m.Continued = b.Tokenizer.Prepends
	e := &Evaluation{base: b}
	return e, e.load(ctx, file, &m)
}

// EvaluatePrompts returns the evaluations of a prompt, or of an ensemble of several: on a file of rows
// or, if that is empty, on each validation file that the first prompt names.
func EvaluatePrompts(ctx context.Context, b *base.Base, members []base.Prompt,
	file string) ([]*Evaluation, error) {
	p := members[0]
	one, err := ensemble(b, members)
	if err != nil {
		return nil, err
	}
	if !p.HasTask() {
		return nil, failure.Hint(fmt.Errorf("%s has no templates to make rows with", p.Path),
			"PEFT saves none: give them with --input, --target and --labels")
	}
	files := []string{file}
	if file == "" {
		files = nil
		for _, v := range p.Meta.Valid {
			files = append(files, base.PathAt(p.Path, v.Path))
		}
		if files == nil {
			return nil, fmt.Errorf(
				"%s was trained without validation files; give the rows with --data", p.Path)
		}
	}
	var all []*Evaluation
	for _, file := range files {
		e := one
		if err := e.load(ctx, file, &p.Meta); err != nil {
			return nil, err
		}
		all = append(all, &e)
	}
	return all, nil
}

// ensemble returns the evaluation of a prompt, or of an ensemble of several, without rows.
func ensemble(b *base.Base, members []base.Prompt) (Evaluation, error) {
	p := members[0]
	one := Evaluation{base: b}
	var names []string
	for _, m := range members {
		if !sameTask(&m.Meta, &p.Meta) {
			return one, fmt.Errorf(
				"%s and %s have different templates or labels, so they are no ensemble",
				p.Path, m.Path)
		}
		names = append(names, m.Path)
		one.values, one.promptRows = append(one.values, m.Values...), append(one.promptRows, m.Rows)
	}
	one.path = strings.Join(names, ",")
	if len(members) == 1 && p.Meta.Chat == "" {
		one.text = p.Meta.Init.Text
	}
	if len(members) > 1 && len(p.Meta.Labels) == 0 {
		return one, fmt.Errorf("%s have no labels to vote on", one.path)
	}
	return one, nil
}

// sameTask reports whether two prompts have the same templates, labels and end token.
func sameTask(a, b *prompt.Meta) bool {
	return a.Input == b.Input && a.Target == b.Target && slices.Equal(a.Labels, b.Labels) &&
		a.LabelScores == b.LabelScores && a.Chat == b.Chat && a.Continued == b.Continued && a.Messages == b.Messages && a.EOS == b.EOS
}

// load reads the rows of a file in the form that m describes.
func (e *Evaluation) load(ctx context.Context, file string, m *prompt.Meta) error {
	task, err := infer.NewTask(m, e.base, e.base.Tokenizer)
	if err != nil {
		return err
	}
	f, choices, err := task.Format()
	if err != nil {
		return err
	}
	e.choices, e.eos, e.mean = choices, m.EOS, m.LabelScores == data.ScoreMean
	limits, err := rowLimits(e.base, slices.Max(append(e.promptRows, 0)),
		cmp.Or(m.MaxTokens, noLimit), m.OnTooLong, m.EOS)
	if err != nil {
		return err
	}
	from := data.Source{Path: file, Reading: readingOf(m), Context: ctx}
	e.Set, err = data.Load("data", from, f, e.base.Tokenizer, limits)
	return err
}

// Measure evaluates the rows, and the base without the prompt for comparison.
func (e *Evaluation) Measure(ctx context.Context, o MeasureOptions) (eval.Evaluation, error) {
	b, rows, options := e.base, evalRows(e.Set), e.options(o.MaxTokens)
	defer StopWith(ctx, b)()
	options.Names, options.Probabilities = e.labels(), o.Probabilities
	name := filepath.Base(e.Set.Path)
	options.Tell = progress(o.Tell, name)
	res := eval.Evaluation{Prompt: e.path, Data: e.Set.Path}
	var err error
	if res.Result, err = eval.Run(ctx, b, e.values, rows, options); err == nil {
		err = e.checkLosses(res.Result)
	}
	if err != nil {
		return res, err
	}
	if o.ExactMatch {
		if err := e.exactMatch(ctx, &res, rows, o); err != nil {
			return res, err
		}
	}
	if len(e.promptRows) == 0 || o.NoBaseline {
		return res, nil
	}
	options.Tell = progress(o.Tell, name+" without the prompt")
	if res.Baseline, err = eval.Alone(ctx, b, rows, options); err == nil && e.text != "" {
		options.Tell = progress(o.Tell, name+" after plain words")
		res.AsWords, err = eval.AsWords(ctx, b, b.Tokenizer.EncodeInput, e.text, rows, options,
			b.MaxPositions)
	}
	return res, errors.Join(err, e.checkLosses(res.Baseline), e.checkLosses(res.AsWords))
}

// checkLosses returns a usage error that names the first row whose loss in r is not finite. r may be nil.
func (e *Evaluation) checkLosses(r *eval.Result) error {
	if r == nil {
		return nil
	}
	for i, loss := range r.Losses {
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return failure.Usage(fmt.Errorf("%s:%d: the loss of the row is %g: the prompt or the base is damaged",
				e.Set.File(), e.Set.Rows[i].Line, loss))
		}
	}
	return nil
}

// options returns the options with which the rows are measured.
func (e *Evaluation) options(maxTokens int) eval.Options {
	o := evalOptions(e.base, e.choices, e.eos, e.promptRows, maxTokens)
	o.MeanScores = e.mean
	return o
}

// labels returns the names of the labels.
func (e *Evaluation) labels() []string {
	var names []string
	for _, c := range e.choices {
		names = append(names, c.Name)
	}
	return names
}

// exactMatch sets the share of rows whose target the model generates and, if asked for, the answers.
func (e *Evaluation) exactMatch(ctx context.Context, res *eval.Evaluation, rows []eval.Row,
	o MeasureOptions) error {
	var share float64
	var err error
	tell := progress(o.Tell, filepath.Base(e.Set.Path)+", exact match")
	if !o.Answers {
		share, err = e.match(ctx, rows, o.MaxTokens, tell)
	} else if res.Answers, err = e.answers(ctx, rows, o.MaxTokens, tell); err == nil {
		share = eval.ExactMatch(res.Answers)
	}
	res.ExactMatch = &share
	return err
}

// match returns the share of rows whose target the model generates.
func (e *Evaluation) match(ctx context.Context, rows []eval.Row, maxTokens int,
	tell func(done, of int)) (float64, error) {
	x, done, err := e.exact(maxTokens)
	if err != nil {
		return 0, err
	}
	defer done()
	x.Tell = tell
	return x.Match(ctx, rows)
}

// answers returns what the model generates for each row.
func (e *Evaluation) answers(ctx context.Context, rows []eval.Row, maxTokens int,
	tell func(done, of int)) ([]eval.Answer, error) {
	x, done, err := e.exact(maxTokens)
	if err != nil {
		return nil, err
	}
	defer done()
	x.Tell = tell
	return x.Answers(ctx, rows)
}

// exact returns what finds rows whose target is generated, and a function that frees it.
func (e *Evaluation) exact(maxTokens int) (*eval.Exact, func(), error) {
	if len(e.promptRows) > 1 {
		return nil, nil, failure.Usage(fmt.Errorf(
			"%s is an ensemble, which votes on labels and generates no text: it has no exact match",
			e.path))
	}
	decoder := e.base.NewDecoder(model.NoCacheLimit)
	x := &eval.Exact{
		Engine: infer.New(decoder, infer.Options{}), Forcer: e.base,
		Values: e.values, Rows: e.promptRows, EOS: e.eos, MaxTokens: maxTokens,
	}
	if len(e.promptRows) == 1 {
		var err error
		if x.Prompt, err = x.Engine.AddPrompt(e.values, e.promptRows[0]); err != nil {
			decoder.Close()
			return nil, nil, err
		}
	}
	return x, decoder.Close, nil
}

// targetText returns a row's target as text.
func (e *Evaluation) targetText(row data.Row) string {
	return e.base.Tokenizer.Decode(row.Target[:len(row.Target)-1])
}

// WriteSamples writes the prediction for each row as a line of JSON, and the answer if it was generated.
func (e *Evaluation) WriteSamples(w io.Writer, r eval.Evaluation) error {
	type sample struct {
		Prompt        string             `json:"prompt,omitempty"`
		File          string             `json:"file"`
		Line          int                `json:"line"`
		Input         string             `json:"input"`
		Label         string             `json:"label,omitempty"`
		Predicted     string             `json:"predicted,omitempty"`
		Right         *bool              `json:"right,omitempty"`
		Probabilities map[string]float64 `json:"probabilities,omitempty"`
		Target        *string            `json:"target,omitempty"` // this and the next two with ExactMatch
		Answer        *string            `json:"answer,omitempty"`
		ExactMatch    *bool              `json:"exact_match,omitempty"`
		Loss          report.Number      `json:"loss"` // −log p of the target, summed over its tokens
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i, row := range e.Set.Rows {
		x := sample{
			Prompt: e.path, File: e.Set.Path, Line: row.Line, Input: row.Text,
			Loss: report.Number(r.Losses[i]),
		}
		if len(e.choices) > 0 {
			right := r.Predicted[i] == row.Label
			x.Label, x.Predicted, x.Right = e.choices[row.Label].Name,
				e.choices[r.Predicted[i]].Name, &right
			x.Probabilities = map[string]float64{}
			for l, p := range r.Probabilities[i] {
				x.Probabilities[e.choices[l].Name] = p
			}
		}
		if r.Answers != nil {
			target, answer := e.targetText(row), e.base.Tokenizer.Decode(r.Answers[i].IDs)
			x.Target, x.Answer, x.ExactMatch = &target, &answer, &r.Answers[i].Exact
		}
		if err := enc.Encode(x); err != nil {
			return err
		}
	}
	return nil
}

// GateCases returns gates that were checked as a report shows them.
func GateCases(gates []eval.Gate) []report.Case {
	var cases []report.Case
	for _, g := range gates {
		cases = append(cases, report.Case{Name: g.Name(), Passed: g.Passed, Missed: g.Missed})
	}
	return cases
}

// EvaluationTable returns the table of evaluations.
func EvaluationTable(results []eval.Evaluation) report.Table {
	number := func(x *float64) string {
		if x == nil {
			return ""
		}
		return fmt.Sprintf("%.4f", *x)
	}
	t := report.Table{Head: []string{"prompt", "rows", "loss", "accuracy", "macro-F1", "base alone"}}
	for _, r := range results {
		alone := ""
		if r.Baseline != nil {
			if alone = number(r.Baseline.Accuracy); alone == "" {
				alone = number(&r.Baseline.Loss)
			}
		}
		t.Rows = append(t.Rows, []string{
			filepath.Base(r.Prompt), fmt.Sprintf("%s (%d)", filepath.Base(r.Data), r.Rows),
			fmt.Sprintf("%.4f", r.Loss), number(r.Accuracy), number(r.MacroF1), alone,
		})
	}
	return t
}
