package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ptune/internal/batch"
	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// prepareOutput makes the folders a run writes to and finds out that it can, before anything is computed.
func prepareOutput(task *config.Task) error {
	if task.Output.Dir == "" {
		task.Output.Dir = filepath.Dir(task.Output.Prompt)
	}
	if info, err := os.Stat(task.Output.Prompt); err == nil && info.IsDir() {
		return wrong{fmt.Errorf("output.prompt %q is a directory, want a file such as %s", task.Output.Prompt, filepath.Join(task.Output.Prompt, "prompt.st"))}
	}
	for _, dir := range []string{task.Output.Dir, filepath.Dir(task.Output.Prompt)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return wrong{fmt.Errorf("make the output folder: %w", err)}
		}
	}
	return nil
}

// taskRows is what a task learns from and is measured on.
type taskRows struct {
	format  *data.Format
	choices []data.Choice
	eos     int32
	chat    *chat.Template // nil: inputs and targets are texts as they are
	train   *data.Set
	valid   []*data.Set
}

// loadRows reads all files of a task, and reports the mistakes of all of them.
func loadRows(task *config.Task, b *base) (*taskRows, error) {
	eos, err := b.eos()
	if err != nil {
		return nil, err
	}
	r := &taskRows{eos: eos}
	if r.format, err = task.Data.Format(); err != nil {
		return nil, err
	}
	if task.Data.Chat || task.Data.Messages != "" {
		if r.chat, err = b.chat(); err != nil {
			return nil, err
		}
		if r.eos, err = r.format.UseChat(r.chat, b.tok, b.EOS); err != nil {
			return nil, err
		}
	}
	if r.choices, err = r.format.Choices(b.tok); err != nil {
		return nil, fmt.Errorf("data.labels: %w", err)
	}
	o, err := rowLimits(b, task.Prompt.Tokens, task.Data.MaxTokens, task.Data.OnTooLong, r.eos)
	if err != nil {
		return nil, err
	}
	var errs []error
	if r.train, err = data.Load("train", source(task, task.Data.Train), r.format, b.tok, o); err != nil {
		errs = append(errs, err)
	} else if task.Data.ValidFraction > 0 {
		valid, err := r.train.Split("valid", task.Data.ValidFraction)
		errs = append(errs, err)
		r.valid = append(r.valid, valid)
	}
	for _, v := range task.Data.Valid {
		set, err := data.Load(v.Name, source(task, v.Path), r.format, b.tok, o)
		errs = append(errs, err)
		r.valid = append(r.valid, set)
	}
	return r, errors.Join(errs...)
}

func source(task *config.Task, path string) data.Source {
	return data.Source{Path: path, Reading: task.Data.Reading()}
}

// rowLimits is how long rows may be behind a prompt: what the task says, or what the model's positions leave.
func rowLimits(b *base, promptRows, maxTokens int, onTooLong string, eos int32) (data.Options, error) {
	o := data.Options{MaxTokens: maxTokens, Limit: fmt.Sprintf("data.max_tokens is %d", maxTokens), OnTooLong: onTooLong, EOS: eos}
	if room := b.MaxPositions - promptRows; b.MaxPositions > 0 && o.MaxTokens > room {
		o.MaxTokens, o.Limit = room, fmt.Sprintf("%s has %d positions and the prompt takes %d", b.Name, b.MaxPositions, promptRows)
		if room < 2 {
			return o, fmt.Errorf("prompt.tokens is %d, but %s has %d positions for prompt and text together", promptRows, b.Name, b.MaxPositions)
		}
	}
	return o, nil
}

// shortened lists what of the rows was dropped or cut.
func (r *taskRows) shortened() []string {
	var notes []string
	for _, set := range append([]*data.Set{r.train}, r.valid...) {
		if note := set.Shortened(); note != "" {
			notes = append(notes, note)
		}
	}
	return notes
}

func (r *taskRows) examples() []batch.Example {
	examples := make([]batch.Example, len(r.train.Rows))
	for i, row := range r.train.Rows {
		examples[i] = batch.Example{IDs: append(append([]int32(nil), row.Input...), row.Target...), From: len(row.Input)}
	}
	return examples
}

// evaluate measures values on each validation set; nil where there is none.
func (r *taskRows) evaluate(b *base, task *config.Task) train.Evaluate {
	if len(r.valid) == 0 {
		return nil
	}
	return func(ctx context.Context, values []float32) ([]report.Eval, error) {
		return r.measure(ctx, b, values, []int{task.Prompt.Tokens}, task.Train.MicroBatchTokens)
	}
}

// measure evaluates the validation sets behind a prompt of so many rows, or none.
func (r *taskRows) measure(ctx context.Context, b *base, values []float32, promptRows []int, maxTokens int) ([]report.Eval, error) {
	options := evalOptions(r.choices, r.eos, promptRows, maxTokens)
	var evals []report.Eval
	for _, set := range r.valid {
		begin := time.Now()
		res, err := eval.Run(ctx, b, values, evalRows(set), options)
		if err != nil {
			return nil, fmt.Errorf("evaluate %s: %w", set.Path, err)
		}
		evals = append(evals, report.Eval{Set: set.Name, Loss: report.Number(res.Loss), Accuracy: res.Accuracy, MacroF1: res.MacroF1, Seconds: time.Since(begin).Seconds()})
	}
	return evals, nil
}

func evalRows(set *data.Set) []eval.Row {
	rows := make([]eval.Row, len(set.Rows))
	for i, r := range set.Rows {
		rows[i] = eval.Row{Input: r.Input, Target: r.Target, Label: r.Label}
	}
	return rows
}

func evalOptions(choices []data.Choice, eos int32, promptRows []int, maxTokens int) eval.Options {
	o := eval.Options{EOS: eos, MaxTokens: maxTokens, PromptRows: promptRows}
	for _, c := range choices {
		o.Labels = append(o.Labels, c.IDs)
	}
	return o
}

// startPrompt makes the prompt as it is before the first step.
func startPrompt(task *config.Task, b *base, rows *taskRows) (*prompt.Prompt, error) {
	s := prompt.Source{Vocab: b.Vocab, Row: b.EmbeddingRow, Ordinary: b.tok.Ordinary}
	init := prompt.Init{Kind: task.Prompt.Init, Seed: task.Train.Seed}
	var err error
	switch task.Prompt.Init {
	case "text":
		init.Text = task.Prompt.Text
		if s.Text, err = b.tok.Encode(task.Prompt.Text); task.Prompt.Special {
			s.Text, err = b.tok.EncodeInput(task.Prompt.Text)
		}
		if err != nil {
			return nil, fmt.Errorf("prompt.text: %w", err)
		}
	case "labels":
		for _, c := range rows.choices {
			s.Labels = append(s.Labels, c.IDs)
		}
	case "file":
		init.File = task.Prompt.File
		s.Load = func() (*prompt.Prompt, error) {
			p, err := prompt.Load(task.Prompt.File)
			if err == nil {
				err = p.Fits(b.Name, b.Fingerprint, b.Hidden)
			}
			return p, err
		}
	}
	p, err := prompt.New(task.Prompt.Tokens, b.Hidden, init, s)
	if err != nil {
		return nil, err
	}
	p.Meta.Base = prompt.Base{Name: b.Name, Path: modelFrom(task.Output.Prompt, task.Model), Fingerprint: b.Fingerprint, Type: b.Type}
	p.Meta.Tokenizer, p.Meta.EOS, p.Meta.Input, p.Meta.Target = b.tok.Hash, rows.eos, task.Data.Input, task.Data.Target
	if p.Meta.Messages = task.Data.Messages; rows.chat != nil {
		p.Meta.Chat = rows.chat.Sum()
	}
	p.Meta.MaxTokens, p.Meta.OnTooLong = task.Data.MaxTokens, task.Data.OnTooLong
	p.Meta.Reading = prompt.Reading(task.Data.Reading())
	for _, l := range rows.format.Labels {
		p.Meta.Labels = append(p.Meta.Labels, prompt.Label(l))
	}
	for _, v := range task.Data.Valid {
		p.Meta.Valid = append(p.Meta.Valid, prompt.Set{Name: v.Name, Path: pathFrom(task.Output.Prompt, v.Path)})
	}
	return p, nil
}

// autoRate is the share of the embedding rows' RMS that learning_rate: auto takes: for adamw the best of 0.7, 1 and 1.4 at our betas on the
// tasks of docs/quality.md, within the plateau of 0.4 to 3.2 of earlier sweeps; for adafactor the best of 0.3, 0.6 and 1.3.
func autoRate(optimizer string) float64 {
	if optimizer == "adafactor" {
		return 0.6
	}
	return 1.4
}

func runConfig(task *config.Task, b *base, rows *taskRows, start *prompt.Prompt) (train.Config, error) {
	t := task.Train
	n := len(rows.train.Rows)
	c := train.Config{
		Steps: t.Steps, BatchSize: t.BatchSize, PackedTokens: max(packedTokens, t.MicroBatchTokens), VirtualTokens: task.Prompt.Tokens,
		Optimizer:    train.OptimizerConfig{Name: t.Optimizer, Betas: t.Betas, WeightDecay: t.WeightDecay},
		LearningRate: t.LearningRate.Value, Schedule: t.Schedule, Warmup: t.Warmup, ClipNorm: t.ClipNorm,
		EvalEvery: t.EvalEvery, Patience: t.Patience, MinGain: t.MinGain,
		Reparametrise: t.Reparametrise, Width: t.Width, Anchor: task.Prompt.Anchor, Seed: t.Seed,
		Order: func(epoch int) []int { return data.Order(n, t.Shuffle, t.Seed, epoch) },
	}
	if c.Steps == 0 {
		c.Steps = t.Epochs * ((n + t.BatchSize - 1) / t.BatchSize)
	}
	if t.LearningRate.Auto {
		c.LearningRate = autoRate(t.Optimizer) * b.EmbeddingRMS()
	}
	switch {
	case c.Anchor != 0 && task.Prompt.AnchorText == "":
		c.AnchorAt = start.Values
	case c.Anchor != 0:
		at, err := textPrompt(task, b, task.Prompt.AnchorText)
		if err != nil {
			return c, fmt.Errorf("prompt.anchor_text: %w", err)
		}
		c.AnchorAt = at.Values
	}
	return c, nil
}

// textPrompt is a text's embeddings at the prompt's length.
func textPrompt(task *config.Task, b *base, text string) (*prompt.Prompt, error) {
	ids, err := b.tok.Encode(text)
	if err != nil {
		return nil, err
	}
	return prompt.New(task.Prompt.Tokens, b.Hidden, prompt.Init{Kind: "text", Text: text}, prompt.Source{Row: b.EmbeddingRow, Text: ids})
}

// unusual says in a sentence each what of a run is far outside of what has worked.
func unusual(task *config.Task, c train.Config, b *base) []string {
	var notes []string
	// Where rates were swept, the best lay between 0.4 and 3.2 times the embedding's RMS with adamw, and between 0.1 and 3.2 with adafactor.
	if share := c.LearningRate / b.EmbeddingRMS(); task.Train.Optimizer != "sgd" && !task.Train.LearningRate.Auto && (share < 0.02 || share > 30) {
		what := "hardly moves"
		if share > 1 {
			what = "jumps about"
		}
		notes = append(notes, fmt.Sprintf("train.learning_rate %.3g is %.2g times the RMS of the embedding, at which a prompt as a rule %s; auto would be %.3g",
			c.LearningRate, share, what, autoRate(task.Train.Optimizer)*b.EmbeddingRMS()))
	}
	if n := c.BatchSize; n > 512 || n < 4 {
		notes = append(notes, fmt.Sprintf("train.batch_size is %d: prompts have been trained with 8 to 512 rows a step; fewer make a noisy gradient, more few steps", n))
	}
	if n := task.Prompt.Tokens; n > 150 {
		notes = append(notes, fmt.Sprintf("prompt.tokens is %d: more than 20 have helped little where it was measured, and more than 100 have harmed", n))
	}
	return notes
}

// trainingMeta is what the prompt's file says of the run. It has no times: the same run makes the same bytes.
func trainingMeta(task *config.Task, c train.Config, rows *taskRows, r *train.Result) *prompt.Training {
	return &prompt.Training{Steps: r.Steps, BestStep: r.BestStep, StopReason: r.StopReason, Optimizer: c.Optimizer.Name,
		LearningRate: c.LearningRate, BatchSize: c.BatchSize, Rows: len(rows.train.Rows), Valid: qualities(r), Version: version}
}

// qualities are what the best values were measured at, by validation set.
func qualities(r *train.Result) map[string]prompt.Quality {
	valid := map[string]prompt.Quality{}
	for _, e := range r.Valid {
		valid[e.Set] = prompt.Quality{Loss: float64(e.Loss), Accuracy: e.Accuracy}
	}
	return valid
}
