package run

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/infer"
	"ptune/internal/report"
)

// classifiedAtOnce is the most rows that a Classifier computes before it gives out their predictions.
const classifiedAtOnce = 64

// Added are the names of the values that a Classifier adds to a row.
var Added = []string{"predicted", "probability", "runner_up", "runner_up_probability"}

// Classifier predicts the labels of rows that have none, after a prompt or an ensemble of several.
type Classifier struct {
	Fields []string // of the input template

	one     Evaluation
	format  *data.Format
	reading data.Reading
	options eval.Options
	most    int  // tokens of an input
	cut     bool // longer inputs are cut
}

// NewClassifier returns the classifier of prompts that have labels. It computes maxTokens tokens at a
// time.
func NewClassifier(b *base.Base, members []base.Prompt, maxTokens int) (*Classifier, error) {
	m := &members[0].Meta
	if !members[0].HasTask() {
		return nil, failure.Hint(fmt.Errorf("%s has no templates and no labels to choose from", members[0].Path),
			"PEFT saves none: give them with --input, --target and --labels")
	}
	if len(m.Labels) == 0 {
		return nil, failure.Hint(fmt.Errorf("%s has no labels to choose from", members[0].Path),
			"generate continues texts after a prompt without labels")
	}
	one, err := ensemble(b, members)
	if err != nil {
		return nil, err
	}
	task, err := infer.NewTask(m, b, b.Tokenizer)
	if err != nil {
		return nil, err
	}
	c := &Classifier{one: one, reading: readingOf(m)}
	if c.format, c.one.choices, err = task.Format(); err != nil {
		return nil, err
	}
	c.Fields = c.format.Input.Fields()
	c.one.eos, c.one.mean = m.EOS, m.LabelScores == data.ScoreMean
	c.options = c.one.options(maxTokens)
	longest := 0
	for _, x := range c.one.choices {
		longest = max(longest, len(x.IDs)+1)
	}
	c.most, c.cut = task.Limit(b.MaxPositions, slices.Max(one.promptRows), longest)
	return c, nil
}

// Source returns a file of rows that is written as those of the prompt's training. The end of ctx ends
// reading it.
func (c *Classifier) Source(ctx context.Context, path string) data.Source {
	return data.Source{Path: path, Reading: c.reading, Context: ctx}
}

// encode returns the tokens of a row's input.
func (c *Classifier) encode(rows *data.Records, r data.Record) ([]int32, error) {
	if r.Blank {
		return nil, nil
	}
	if err := rows.CheckNames(r, Added); err != nil {
		return nil, err
	}
	return c.format.EncodeInput(r.Fields, c.one.base.Tokenizer, c.most, c.cut)
}

// Run calls out with each row, in their order, and with the values to add to it. If the rows are all
// there, mistakes in them are found before the first is answered, else the rows before the first mistake
// are answered. tell, if not nil, is told of the progress through rows that are all there.
func (c *Classifier) Run(ctx context.Context, rows *data.Records, tell report.Func,
	out func([]data.Record, [][]data.Value) error) error {
	defer StopWith(ctx, c.one.base)()
	if rows.All == nil {
		return c.stream(ctx, rows, out)
	}
	if rows.Errors != nil {
		return failure.Usage(rows.Errors)
	}
	var wrong data.Mistakes
	all := make([]classified, len(rows.All))
	for i, r := range rows.All {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ids, err := c.encode(rows, r)
		if err != nil {
			wrong.Add(r.Place, err)
		}
		all[i] = classified{row: r, ids: ids}
	}
	if err := wrong.Err(); err != nil {
		return failure.Usage(err)
	}
	done := 0
	show := progress(tell, "rows")
	for some := range slices.Chunk(all, classifiedAtOnce) {
		if err := c.answer(ctx, some, out); err != nil {
			return err
		}
		if done += len(some); show != nil {
			show(done, len(all))
		}
	}
	return nil
}

// classified is a row to classify, or the error that ends the rows.
type classified struct {
	row data.Record
	ids []int32
	err error
}

// errStopped ends the reading of rows that nobody waits for.
var errStopped = errors.New("stopped")

// stream answers rows as they come: those that have come since the last ones, together.
func (c *Classifier) stream(ctx context.Context, rows *data.Records,
	out func([]data.Record, [][]data.Value) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(errStopped)
	coming := make(chan classified, classifiedAtOnce)
	send := func(x classified) error {
		select {
		case coming <- x:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() {
		defer close(coming)
		err := rows.Each(func(r data.Record) error {
			ids, err := c.encode(rows, r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.Place, err)
			}
			return send(classified{row: r, ids: ids})
		})
		if err != nil {
			_ = send(classified{err: failure.Usage(err)}) // fails if nobody waits
		}
	}()
	for {
		some, ended, err := c.next(ctx, coming)
		if len(some) > 0 {
			if failed := c.answer(ctx, some, out); failed != nil {
				return failed
			}
		}
		if ended || err != nil {
			return err
		}
	}
}

// next waits for a row and returns it with those that have come, too, and the error that ends the rows.
func (c *Classifier) next(ctx context.Context, coming <-chan classified) (
	some []classified, ended bool, err error) {
	take := func(x classified, ok bool) bool {
		if ended = !ok; ok && x.err == nil {
			some = append(some, x)
		}
		err = x.err
		return ok && x.err == nil && len(some) < classifiedAtOnce
	}
	select {
	case x, ok := <-coming:
		if !take(x, ok) {
			return some, ended, err
		}
	case <-ctx.Done():
		return nil, true, context.Cause(ctx)
	}
	for {
		select {
		case x, ok := <-coming:
			if !take(x, ok) {
				return some, ended, err
			}
		default:
			return some, false, nil
		}
	}
}

// answer predicts the labels of rows and calls out with them. Blank lines get no values.
func (c *Classifier) answer(ctx context.Context, some []classified,
	out func([]data.Record, [][]data.Value) error) error {
	var inputs [][]int32
	for _, x := range some {
		if !x.row.Blank {
			inputs = append(inputs, x.ids)
		}
	}
	var found []eval.Prediction
	if len(inputs) > 0 {
		var err error
		if found, err = eval.Predict(ctx, c.one.base, c.one.values, inputs, c.options); err != nil {
			return err
		}
	}
	rows, values := make([]data.Record, len(some)), make([][]data.Value, len(some))
	for i, x := range some {
		if rows[i] = x.row; x.row.Blank {
			continue
		}
		if math.IsNaN(found[0].Probability) {
			return fmt.Errorf("%s: %w", x.row.Place, infer.ErrNaN)
		}
		values[i], found = c.values(found[0]), found[1:]
	}
	return out(rows, values)
}

// values returns what a prediction adds to a row, in the order of Added. Probabilities have six digits.
func (c *Classifier) values(p eval.Prediction) []data.Value {
	number := func(p float64) string { return strconv.FormatFloat(p, 'g', 6, 64) }
	return []data.Value{
		{Name: Added[0], Text: c.one.choices[p.Label].Name},
		{Name: Added[1], Text: number(p.Probability), Number: true},
		{Name: Added[2], Text: c.one.choices[p.RunnerUp].Name},
		{Name: Added[3], Text: number(p.RunnerUpProbability), Number: true},
	}
}
