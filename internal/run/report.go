package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/report"
)

// OpenFunc opens the base that a prompt was made for.
type OpenFunc func(p base.Prompt) (*base.Base, error)

// Report returns what a page shows of the run in a folder, with its worst rows, at most worst. The base
// is opened for predictions and tokens; if it cannot be opened, the report has a note instead.
func Report(ctx context.Context, dir string, worst int, open OpenFunc,
	tell report.Func) (r report.Run, err error) {
	f, err := os.Open(EventsPath(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return r, failure.Usage(failure.Hint(fmt.Errorf("read the run: %w", err),
			"a run's folder is its task's output.dir (default: its prompt's folder)"))
	}
	if err != nil {
		return r, fmt.Errorf("read the run: %w", err)
	}
	defer f.Close()
	r.Name = filepath.ToSlash(filepath.Clean(dir))
	if r.Log, err = report.Read(f); err != nil {
		return r, failure.Usage(fmt.Errorf("read %s: %w", f.Name(), err))
	}
	if len(r.Log.Steps) == 0 {
		return r, failure.Usage(fmt.Errorf("%s has no step yet", f.Name()))
	}
	r.Facts = r.Log.Facts()
	for key, value := range r.Log.Start.Task {
		r.Task = append(r.Task, report.Fact{Name: key, Value: value})
	}
	slices.SortFunc(r.Task, func(a, b report.Fact) int { return strings.Compare(a.Name, b.Name) })
	if r.Log.Start.Prompt == "" {
		r.Note = "The run does not say where its prompt is, so only curves are shown."
		return r, nil
	}
	if err := addPrompt(ctx, &r, dir, worst, open, tell); err != nil {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		r.Note = "Predictions and tokens are left out: " + err.Error() + "."
	}
	return r, nil
}

// addPrompt measures the run's prompt on its validation rows and finds its nearest tokens.
func addPrompt(ctx context.Context, r *report.Run, dir string, worst int, open OpenFunc,
	tell report.Func) error {
	p, err := base.LoadPrompt(base.PathAt(EventsPath(dir), r.Log.Start.Prompt))
	if err != nil {
		return err
	}
	b, err := open(p)
	if err != nil {
		return err
	}
	defer b.Close()
	x := Inspect(p)
	x.AddNearest(b, 5)
	for _, v := range x.Tokens {
		t := report.Token{Norm: v.Norm}
		for _, n := range v.Nearest {
			t.Nearest = append(t.Nearest, fmt.Sprintf("%q %.2f", n.Token, n.Cosine))
		}
		r.Tokens = append(r.Tokens, t)
	}
	e, err := validationOf(ctx, r, dir, b, p)
	if err != nil || e == nil {
		return err
	}
	defer StopWith(ctx, b)()
	options := e.options(4096)
	options.Tell = progress(tell, filepath.Base(e.Set.Path))
	res, err := eval.Run(ctx, b, e.values, evalRows(e.Set), options)
	if err == nil {
		err = e.checkLosses(res)
	}
	if err != nil {
		return err
	}
	r.Labels = e.labels()
	truth, order := make([]int, len(e.Set.Rows)), make([]int, len(e.Set.Rows))
	for i, row := range e.Set.Rows {
		truth[i], order[i] = row.Label, i
	}
	if len(e.choices) > 0 {
		r.Confusion = eval.Confusion(truth, res.Predicted, len(e.choices))
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(res.Losses[b], res.Losses[a]) })
	order = order[:min(worst, len(order))]
	var rows []eval.Row
	for _, i := range order {
		m := report.Mistake{Text: shortText(e.Set.Rows[i].Text), Loss: res.Losses[i]}
		if len(e.choices) > 0 {
			m.Target, m.Answer = e.choices[truth[i]].Name, e.choices[res.Predicted[i]].Name
		} else {
			m.Target = shortText(e.targetText(e.Set.Rows[i]))
		}
		m.Right = len(e.choices) > 0 && res.Predicted[i] == truth[i]
		rows, r.Worst = append(rows, evalRows(e.Set)[i]), append(r.Worst, m)
	}
	if len(e.choices) > 0 || len(rows) == 0 {
		return nil
	}
	answers, err := e.answers(ctx, rows, 4096, nil) // of a task with free text
	for i, a := range answers {
		r.Worst[i].Answer, r.Worst[i].Right = shortText(b.Tokenizer.Decode(a.IDs)), a.Exact
	}
	return err
}

// validationOf returns the evaluation of a run's prompt on its first validation file, or on the training rows
// that it held out; nil if it had no validation. It names the rows in r.
func validationOf(ctx context.Context, r *report.Run, dir string, b *base.Base,
	p base.Prompt) (*Evaluation, error) {
	share, err := strconv.ParseFloat(cmp.Or(r.Log.Start.Task["data.valid_fraction"], "0"), 64)
	if err != nil {
		return nil, fmt.Errorf("read data.valid_fraction of the run: %w", err)
	}
	path := base.PathAt(EventsPath(dir), r.Log.Start.Train)
	if path == "" { // of an earlier version: as the task file has it
		path = r.Log.Start.Task["data.train"]
	}
	switch {
	case len(p.Meta.Valid) > 0:
		path = ""
	case share == 0:
		return nil, nil
	case r.Log.Start.Task["data.train"] == data.Stdin:
		return nil, errors.New("the rows that were held out came from standard input")
	}
	evals, err := EvaluatePrompts(ctx, b, []base.Prompt{p}, path)
	if err != nil {
		return nil, err
	}
	e := evals[0]
	if r.Set = e.Set.Path; len(p.Meta.Valid) == 0 {
		if e.Set, err = e.Set.Split(splitName, share); err != nil {
			return nil, err
		}
		r.Set = fmt.Sprintf("%s (the %d held-out rows)", e.Set.Path, len(e.Set.Rows))
	}
	return e, nil
}

// shortText returns the beginning of a text, short enough for a table.
func shortText(s string) string {
	if r := []rune(s); len(r) > 400 {
		return string(r[:400]) + "…"
	}
	return s
}
