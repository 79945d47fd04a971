package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"ptune/internal/base"
	"ptune/internal/batch"
	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/infer"
	"ptune/internal/model"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Rows are the rows a task trains and validates on.
type Rows struct {
	Format  *data.Format
	Choices []data.Choice  // the labels; none: free text
	Mean    bool           // labels are scored by means over tokens
	EOS     int32          // ends each target
	Chat    *chat.Template // nil: inputs and targets are plain text
	Train   *data.Set
	Valid   []*data.Set
	Sampled []report.Note // for each validation set of which only some rows are evaluated
}

// LoadRows reads all files of a task, and leaves as many validation rows as train.eval_rows says. It returns
// the mistakes of all files, or the cause of the end of ctx.
func LoadRows(ctx context.Context, task *config.Task, b *base.Base) (*Rows, error) {
	r, err := loadAllRows(ctx, task, b)
	if err != nil {
		return nil, err
	}
	return r.sampled(task.Train.EvalRows, task.Train.Seed), nil
}

// loadAllRows is LoadRows without train.eval_rows.
func loadAllRows(ctx context.Context, task *config.Task, b *base.Base) (*Rows, error) {
	eos, err := b.EndToken()
	if err != nil {
		return nil, err
	}
	r := &Rows{EOS: eos, Mean: task.Data.LabelScores == data.ScoreMean}
	if r.Format, err = task.Data.Format(); err != nil {
		return nil, err
	}
	if task.Data.Chat || task.Data.Messages != "" {
		if r.Chat, err = b.Chat(); err != nil {
			return nil, err
		}
		if r.EOS, err = r.Format.UseChat(r.Chat, b.Tokenizer, b.EOS); err != nil {
			return nil, err
		}
	}
	if r.Choices, err = r.Format.Choices(b.Tokenizer); err != nil {
		return nil, fmt.Errorf("data.labels: %w", err)
	}
	limits, err := r.limits(task, b)
	if err != nil {
		return nil, err
	}
	load := func(key, name, path string) (*data.Set, error) {
		set, err := data.Load(name, Source(ctx, task, path), r.Format, b.Tokenizer, limits)
		return set, task.FileError(key, path, err)
	}
	var errs []error
	if r.Train, err = load("data.train", "train", task.Data.Train); err != nil {
		errs = append(errs, err)
	} else if task.Data.ValidFraction > 0 {
		valid, err := r.Train.Split(splitName, task.Data.ValidFraction)
		errs = append(errs, err)
		r.Valid = append(r.Valid, valid)
	}
	for _, v := range task.Data.Valid {
		set, err := load("data.valid", v.Name, v.Path)
		errs = append(errs, err)
		r.Valid = append(r.Valid, set)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// splitName is the name of the validation set that data.valid_fraction makes.
const splitName = "valid"

// sampled returns the rows with at most that many, if it is not 0, in each validation set: of each label
// its share, chosen by the seed, in the order of the file. It does not change r.
func (r *Rows) sampled(most int, seed uint64) *Rows {
	few := *r
	few.Valid, few.Sampled = slices.Clone(r.Valid), nil
	for i, set := range r.Valid {
		n := len(set.Rows)
		if most == 0 || n <= most {
			continue
		}
		order := rand.New(rand.NewPCG(seed, 0x6576616c)).Perm(n) // "eval"
		slices.SortStableFunc(order, func(a, b int) int {
			return cmp.Compare(set.Rows[a].Label, set.Rows[b].Label)
		})
		var chosen []int
		for k := range most { // at equal distances among the rows sorted by label
			chosen = append(chosen, order[(2*k+1)*n/(2*most)])
		}
		slices.Sort(chosen)
		some := *set
		some.Rows = make([]data.Row, most)
		for k, at := range chosen {
			some.Rows[k] = set.Rows[at]
		}
		few.Valid[i] = &some
		few.Sampled = append(few.Sampled, report.Note(fmt.Sprintf("%s: %d of %d rows are evaluated in training "+
			"(train.eval_rows), chosen with each label's share", set.File(), most, n)))
	}
	return &few
}

// Source returns a data file of a task with how the task says it is written. The end of ctx ends reading it.
func Source(ctx context.Context, task *config.Task, path string) data.Source {
	return data.Source{Path: path, Reading: task.Data.Reading(), Context: ctx}
}

// unusual returns a sentence for each file whose rows are probably not as meant: validation rows that
// are trained on, and inputs that end in a blank.
func (r *Rows) unusual() []string {
	var notes []string
	trained := map[string]bool{}
	for _, row := range r.Train.Rows {
		trained[row.Text] = true
	}
	for _, set := range r.Valid {
		if n, _ := count(set, func(row data.Row) bool { return trained[row.Text] }); n > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s the text of a training row, "+
				"so they do not show how well the prompt does on new rows",
				set.File(), share(n, set, "has", "have")))
		}
	}
	if r.Chat != nil { // the template decides what is between input and target
		return notes
	}
	for _, set := range append([]*data.Set{r.Train}, r.Valid...) {
		n, line := count(set, func(row data.Row) bool { return strings.HasSuffix(row.Text, " ") })
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%s: the input of %s in a blank (the first in line %d), "+
				"which most tokenizers join with the next word; "+
				"if the template has it, put it at the beginning of data.target",
				set.File(), share(n, set, "ends", "ends"), line))
		}
	}
	return notes
}

// count returns the number of rows that are so, and the line of the first one.
func count(set *data.Set, so func(data.Row) bool) (n, line int) {
	for _, row := range set.Rows {
		if so(row) {
			if n++; n == 1 {
				line = row.Line
			}
		}
	}
	return n, line
}

// share says how many rows of a set do what a verb says, of one row and of several.
func share(n int, set *data.Set, one, several string) string {
	switch {
	case n == len(set.Rows) && n > 1:
		return fmt.Sprintf("all %d rows %s", n, several)
	case n == 1:
		return fmt.Sprintf("1 of %d rows %s", len(set.Rows), one)
	}
	return fmt.Sprintf("%d of %d rows %s", n, len(set.Rows), several)
}

// storedReading returns how files of rows are read, as a prompt's file says it. There utf-8 is what a
// file is taken for if nothing else is known.
func storedReading(r data.Reading) prompt.Reading {
	if r.Encoding == data.Auto {
		r.Encoding = data.UTF8
	}
	return prompt.Reading(r)
}

// readingOf returns how the files of a prompt's task are read.
func readingOf(m *prompt.Meta) data.Reading {
	r := data.Reading(m.Reading)
	if r.Encoding == data.UTF8 {
		r.Encoding = data.Auto
	}
	return r
}

func (r *Rows) limits(task *config.Task, b *base.Base) (data.Options, error) {
	return rowLimits(b, task.Prompt.Tokens, task.Data.MaxTokens, task.Data.OnTooLong, r.EOS)
}

// rowLimits returns how long rows may be after a prompt of promptRows: maxTokens, or what the model's
// positions leave if that is less.
func rowLimits(b *base.Base, promptRows, maxTokens int, onTooLong string,
	eos int32) (data.Options, error) {
	o := data.Options{
		MaxTokens: maxTokens, Limit: fmt.Sprintf("data.max_tokens is %d", maxTokens),
		OnTooLong: onTooLong, EOS: eos,
	}
	if left := b.MaxPositions - promptRows; b.MaxPositions > 0 && o.MaxTokens > left {
		o.MaxTokens = left
		o.Limit = fmt.Sprintf("%s has %d positions and the prompt takes %d",
			b.Name, b.MaxPositions, promptRows)
		if left < 2 {
			return o, fmt.Errorf("prompt.tokens is %d, but %s has %d positions "+
				"for prompt and text together", promptRows, b.Name, b.MaxPositions)
		}
	}
	return o, nil
}

// Notes returns sentences about the files: encodings that were found out, rows that were dropped or
// cut.
func (r *Rows) Notes() []string {
	var notes []string
	for _, set := range append([]*data.Set{r.Train}, r.Valid...) {
		notes = append(notes, set.Notes()...)
	}
	return notes
}

// examples returns the training rows as token ids and the position of each target.
func (r *Rows) examples() []batch.Example {
	examples := make([]batch.Example, len(r.Train.Rows))
	for i, row := range r.Train.Rows {
		ids := append(append([]int32(nil), row.Input...), row.Target...)
		examples[i] = batch.Example{IDs: ids, From: len(row.Input)}
	}
	return examples
}

// guessLoss returns the training loss of a guess that ignores the inputs and gives each label its
// share of the rows: the entropy of the shares, divided by the mean number of a target's tokens.
// Without labels it returns 0.
func (r *Rows) guessLoss() float64 {
	if len(r.Choices) == 0 {
		return 0
	}
	rows, tokens := make([]float64, len(r.Choices)), 0.0 // of each label
	for _, row := range r.Train.Rows {
		rows[row.Label]++
		tokens += float64(len(row.Target))
	}
	nats := 0.0
	for _, n := range rows {
		if n > 0 {
			nats -= n * math.Log(n/float64(len(r.Train.Rows)))
		}
	}
	return nats / tokens
}

// evaluate returns a function that evaluates prompt values on each validation set; nil without one.
func (r *Rows) evaluate(b *base.Base, task *config.Task, tell report.Func) train.Evaluate {
	if len(r.Valid) == 0 {
		return nil
	}
	return func(ctx context.Context, values []float32) ([]report.Eval, error) {
		return r.measure(ctx, b, r.Valid, values, []int{task.Prompt.Tokens}, measuring{
			maxTokens: task.Train.MicroBatchTokens, exactMatch: task.Train.Best == train.BestExactMatch, tell: tell,
		})
	}
}

// measure evaluates sets of rows after a prompt of promptRows, or without one.
func (r *Rows) measure(ctx context.Context, b *base.Base, sets []*data.Set, values []float32,
	promptRows []int, m measuring) ([]report.Eval, error) {
	defer StopWith(ctx, b)()
	options := evalOptions(b, r.Choices, r.EOS, promptRows, m.maxTokens)
	options.MeanScores = r.Mean
	var evals []report.Eval
	for _, set := range sets {
		begin := time.Now()
		options.Tell = progress(m.tell, set.Name)
		res, err := eval.Run(ctx, b, values, evalRows(set), options)
		if err != nil {
			return nil, fmt.Errorf("evaluate %s: %w", set.Path, err)
		}
		e := report.Eval{
			Set: set.Name, Loss: report.Number(res.Loss), Accuracy: res.Accuracy, MacroF1: res.MacroF1,
		}
		if m.exactMatch && !math.IsNaN(res.Loss) { // else no text can be generated
			one := Evaluation{base: b, values: values, promptRows: promptRows, eos: r.EOS}
			share, err := one.match(ctx, evalRows(set), m.maxTokens, progress(m.tell, set.Name+", exact match"))
			if err != nil {
				return nil, fmt.Errorf("evaluate %s: %w", set.Path, err)
			}
			e.ExactMatch = &share
		}
		e.Seconds = time.Since(begin).Seconds()
		evals = append(evals, e)
	}
	return evals, nil
}

// measuring is how sets of rows are measured.
type measuring struct {
	maxTokens  int  // tokens of text computed at a time
	exactMatch bool // also measure how many targets the model generates
	tell       report.Func
}

// progress returns a function that reports the progress of an evaluation of what to tell.
func progress(tell report.Func, what string) func(done, of int) {
	if tell == nil {
		return nil
	}
	return func(done, of int) { tell(report.Progress{What: what, Done: done, Of: of}) }
}

// StopWith lets the end of ctx end a pass of the base that is running. The result undoes it.
func StopWith(ctx context.Context, b *base.Base) func() {
	before := b.Stop
	b.Stop = func() error { return context.Cause(ctx) }
	return func() { b.Stop = before }
}

// evalRows returns the rows of a set as an evaluation takes them.
func evalRows(set *data.Set) []eval.Row {
	rows := make([]eval.Row, len(set.Rows))
	for i, r := range set.Rows {
		rows[i] = eval.Row{Text: r.Text, Input: r.Input, Target: r.Target, Label: r.Label}
	}
	return rows
}

// evalOptions returns the options of an evaluation with these labels, after prompts of promptRows.
func evalOptions(b *base.Base, choices []data.Choice, eos int32, promptRows []int,
	maxTokens int) eval.Options {
	o := eval.Options{
		EOS: eos, MaxTokens: maxTokens, PromptRows: promptRows,
		Trees: func() infer.Trees { return b.NewDecoder(model.NoCacheLimit) },
	}
	for _, c := range choices {
		o.Labels = append(o.Labels, c.IDs)
	}
	return o
}
