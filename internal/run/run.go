// Package run makes runs of tasks: rows, prompt and training configuration from a task file and a base,
// then planning, training and resuming. Sweeps and comparisons are built on it. It knows no flags and
// writes to no terminal.
package run

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Run is a task opened on a base.
type Run struct {
	Task   *config.Task
	Base   *base.Base
	Rows   *Rows
	Prompt *prompt.Prompt // as initialised; Train replaces its values by the best
	Config train.Config

	identity  map[string]string // everything that its numbers depend on
	version   string            // of the program, for the prompt's file
	began     time.Time         // when it was opened
	available func() float64    // memory in bytes; tests replace it
}

// Open reads the rows of a task, initialises its prompt and makes its training configuration. Its
// errors are mistakes of the task or the data, unless ctx ends. version is kept in the prompt's file.
func Open(ctx context.Context, task *config.Task, b *base.Base, version string) (*Run, error) {
	began := time.Now()
	rows, err := LoadRows(ctx, task, b)
	if err != nil {
		return nil, failure.Usage(err)
	}
	r, err := openWith(task, b, rows, identity(task, b, rows), version)
	if err == nil {
		r.began = began
	}
	return r, err
}

// openWith is Open with rows that were read before, and the run's identity.
func openWith(task *config.Task, b *base.Base, rows *Rows, identity map[string]string,
	version string) (*Run, error) {
	r := &Run{
		Task: task, Base: b, Rows: rows,
		identity: identity, version: version, began: time.Now(), available: process.AvailableMemory,
	}
	var err error
	if r.Prompt, err = r.newPrompt(); err != nil {
		key := "prompt.init"
		if task.Prompt.Init == "file" {
			key = "prompt.file"
		}
		return nil, failure.Usage(fmt.Errorf("%s: %w", task.Place(key), err))
	}
	if r.Config, err = r.config(); err != nil {
		return nil, failure.Usage(err)
	}
	return r, nil
}

// CheckOutputs returns why a run could not write its files. It leaves nothing behind.
func CheckOutputs(task *config.Task) error {
	at, path := task.Place("output.prompt"), task.Output.Prompt
	folder := strings.HasSuffix(path, "/")
	if info, err := os.Stat(path); err == nil {
		folder = info.IsDir()
	}
	if folder {
		return failure.Usage(fmt.Errorf("%s: output.prompt %q is a directory, want a file such as %s",
			at, path, filepath.Join(path, "prompt.st")))
	}
	if files.Direct(path) {
		return failure.Usage(fmt.Errorf("%s: output.prompt %q is a device, a pipe or an open file, want a file "+
			"with a folder for the run's state", at, path))
	}
	inputs := []string{task.Data.Train, task.Prompt.File}
	for _, set := range task.Data.Valid {
		inputs = append(inputs, set.Path)
	}
	if err := files.CheckWithFolder(path, inputs...); err != nil {
		return failure.Usage(fmt.Errorf("%s: output.prompt: %w", at, err))
	}
	if err := files.CheckWithFolder(statePath(outputDir(task))); err != nil {
		return failure.Usage(fmt.Errorf("%s: output.dir: %w", task.Place("output.dir"), err))
	}
	return nil
}

// outputDir returns the folder of a task's states and events: output.dir or, if that is empty, the
// folder of output.prompt.
func outputDir(task *config.Task) string {
	return cmp.Or(task.Output.Dir, filepath.Dir(task.Output.Prompt))
}

// MakeFolders makes the folders that a task writes to, before anything is computed. It returns the
// error of CheckOutputs, and sets an empty output.dir.
func MakeFolders(task *config.Task) error {
	if err := CheckOutputs(task); err != nil {
		return err
	}
	task.Output.Dir = outputDir(task)
	for _, dir := range []string{task.Output.Dir, filepath.Dir(task.Output.Prompt)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return failure.Usage(fmt.Errorf("make the output folder: %w", err))
		}
	}
	return nil
}

// newPrompt returns the prompt before the first step, with the metadata of its file.
func (r *Run) newPrompt() (*prompt.Prompt, error) {
	task, b := r.Task, r.Base
	s := prompt.Source{Vocab: b.Vocab, Row: b.EmbeddingRow, Ordinary: b.Tokenizer.Ordinary}
	init := prompt.Init{Kind: task.Prompt.Init, Seed: task.Train.Seed}
	var err error
	switch task.Prompt.Init {
	case "text":
		init.Text = task.Prompt.Text
		encode := b.Tokenizer.Encode
		if task.Prompt.Special {
			encode = b.Tokenizer.EncodeInput
		}
		if s.Text, err = encode(task.Prompt.Text); err != nil {
			return nil, fmt.Errorf("prompt.text: %w", err)
		}
	case "labels":
		for _, c := range r.Rows.Choices {
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
	r.describe(&p.Meta)
	return p, nil
}

// describe writes the task's part of a prompt's metadata: what using the prompt needs.
func (r *Run) describe(m *prompt.Meta) {
	task, b := r.Task, r.Base
	b.NameIn(m, task.Output.Prompt, task.Model)
	m.Continued = b.Tokenizer.Prepends
	m.EOS = r.Rows.EOS // a chat template can end a target with another token than the base's first
	m.Input, m.Target, m.Messages = task.Data.Input, task.Data.Target, task.Data.Messages
	if r.Rows.Chat != nil {
		m.Chat = r.Rows.Chat.Sum()
	}
	m.MaxTokens, m.OnTooLong = task.Data.MaxTokens, task.Data.OnTooLong
	m.Reading = storedReading(task.Data.Reading())
	if r.Rows.Mean {
		m.LabelScores = data.ScoreMean
	}
	for _, l := range r.Rows.Format.Labels {
		m.Labels = append(m.Labels, prompt.Label(l))
	}
	for _, v := range task.Data.Valid {
		path := base.PathFrom(task.Output.Prompt, v.Path)
		m.Valid = append(m.Valid, prompt.Set{Name: v.Name, Path: path})
	}
}

// autoRate returns the learning rate of learning_rate: auto as a multiple of the embedding rows' RMS.
// For adamw it is the best of 0.7, 1 and 1.4 with our betas on the tasks of docs/quality.md, within the
// plateau of 0.4 to 3.2 of earlier sweeps; for adafactor the best of 0.3, 0.6 and 1.3.
func autoRate(optimizer string) float64 {
	if optimizer == "adafactor" {
		return 0.6
	}
	return 1.4
}

// packedTokens is the lower limit of Config.PackedTokens: rows that are packed together share prefixes
// even if train.micro_batch_tokens computes them in smaller parts.
const packedTokens = 4096

// config returns the training configuration that the task describes.
func (r *Run) config() (train.Config, error) {
	t, n := r.Task.Train, len(r.Rows.Train.Rows)
	c := train.Config{
		Steps: t.Steps, BatchSize: t.BatchSize,
		PackedTokens: max(packedTokens, t.MicroBatchTokens), VirtualTokens: r.Task.Prompt.Tokens,
		Optimizer: train.OptimizerConfig{
			Name: t.Optimizer, Betas: t.Betas, WeightDecay: t.WeightDecay,
		},
		LearningRate: t.LearningRate.Value, Schedule: t.Schedule, Warmup: t.Warmup,
		ClipNorm: t.ClipNorm, MaxDecrease: t.MaxDecrease,
		EvalEvery: t.EvalEvery, Patience: t.Patience, MinGain: t.MinGain,
		Best:          t.Best,
		Reparametrise: t.Reparametrise, Width: t.Width, Anchor: r.Task.Prompt.Anchor, Seed: t.Seed,
		GuessLoss: r.Rows.guessLoss(),
		Order:     func(epoch int) []int { return data.Order(n, t.Shuffle, t.Seed, epoch) },
	}
	if c.Steps == 0 {
		c.Steps = t.Epochs * ((n + t.BatchSize - 1) / t.BatchSize)
	}
	if t.LearningRate.Auto {
		c.LearningRate = autoRate(t.Optimizer) * r.Base.EmbeddingRMS()
	}
	first, trained := r.firstCost(c.Steps, c.BatchSize)
	c.NoFirstEval = leftOut(first, trained, flopsPerToken(r.Base))
	switch {
	case c.Anchor != 0 && r.Task.Prompt.AnchorText == "":
		c.AnchorAt = r.Prompt.Values
	case c.Anchor != 0:
		at, err := r.textPrompt(r.Task.Prompt.AnchorText)
		if err != nil {
			return c, fmt.Errorf("prompt.anchor_text: %w", err)
		}
		c.AnchorAt = at.Values
	}
	return c, nil
}

// textPrompt returns the embeddings of a text, repeated or cut to the prompt's length.
func (r *Run) textPrompt(text string) (*prompt.Prompt, error) {
	ids, err := r.Base.Tokenizer.Encode(text)
	if err != nil {
		return nil, err
	}
	init := prompt.Init{Kind: "text", Text: text}
	source := prompt.Source{Row: r.Base.EmbeddingRow, Text: ids}
	return prompt.New(r.Task.Prompt.Tokens, r.Base.Hidden, init, source)
}

// Unusual returns a sentence for each setting that is far outside the range known to work.
func (r *Run) Unusual() []string {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	// In sweeps, the best rates were 0.4 to 3.2 times the embedding's RMS with adamw, and 0.1 to 3.2
	// with adafactor.
	if t := r.Task.Train; t.Optimizer != "sgd" && !t.LearningRate.Auto {
		rms := r.Base.EmbeddingRMS() // reads the whole embedding
		ratio := r.Config.LearningRate / rms
		effect := "hardly changes"
		if ratio > 1 {
			effect = "oscillates"
		}
		if ratio < 0.02 || ratio > 30 {
			note("train.learning_rate %.3g is %.2g times the RMS of the embedding, "+
				"at which a prompt usually %s; auto would be %.3g",
				r.Config.LearningRate, ratio, effect, autoRate(t.Optimizer)*rms)
		}
	}
	if n := r.Config.BatchSize; n > 512 || n < 4 {
		note("train.batch_size is %d; 8 to 512 rows are known to work: "+
			"fewer make the gradient noisy, more leave few steps", n)
	}
	if n := r.Task.Prompt.Tokens; n > 150 {
		note("prompt.tokens is %d; in measurements, more than 20 helped little, "+
			"and more than 100 harmed", n)
	}
	return append(notes, r.Rows.unusual()...)
}

// Job returns what training the run's prompt takes, from the beginning. What happens is told to tell.
func (r *Run) Job(tell report.Func) train.Job {
	return train.Job{
		Config: r.Config, Values: r.Prompt.Values, Began: r.began,
		Examples: r.Rows.examples(), Evaluate: r.Rows.evaluate(r.Base, r.Task, tell), Tell: tell,
	}
}

// Start returns the event that begins the run.
func (r *Run) Start() report.Start {
	dir := r.Task.Output.Dir
	return report.Start{
		Model: r.Base.Name, Rows: len(r.Rows.Train.Rows), Steps: r.Config.Steps,
		BatchSize:     r.Config.BatchSize,
		VirtualTokens: r.Prompt.Rows, Parameters: len(r.Prompt.Values),
		LearningRate: r.Config.LearningRate, Optimizer: r.Config.Optimizer.Name, Seed: r.Task.Train.Seed,
		Prompt: base.PathFrom(EventsPath(dir), r.Task.Output.Prompt),
		Train:  base.PathFrom(EventsPath(dir), r.Task.Data.Train),
		Machine: fmt.Sprintf("%s, %d threads, %s kernels",
			cmp.Or(process.CPUName(), runtime.GOARCH), r.Base.Pool.Threads(), r.Base.Pool.Kernels()),
		Task: r.Task.Values(), EvalEvery: r.evalEvery(),
	}
}

// evalEvery returns the steps between evaluations, 0 without validation rows.
func (r *Run) evalEvery() int {
	if len(r.Rows.Valid) == 0 {
		return 0
	}
	return r.Config.EvalEvery
}

// Train trains the prompt as planned, from a state or, if from is nil, from the beginning. It saves
// states to output.dir and reports what happens to tell. The prompt gets the best values, with an error
// too; the result then is the best so far.
func (r *Run) Train(ctx context.Context, p Plan, from *train.State,
	tell report.Func) (*train.Result, error) {
	p.apply(r.Base)
	defer StopWith(ctx, r.Base)()
	job := r.Job(tell)
	job.From = from
	job.Save = func(state *train.State) error {
		state.Identity = r.identity
		return state.Save(statePath(r.Task.Output.Dir))
	}
	result, err := train.Run(ctx, r.Base, job)
	r.keep(result)
	return result, err
}

// keep puts a result into the run's prompt.
func (r *Run) keep(result *train.Result) {
	r.Prompt.Values = result.Best
	// No times: the same run writes the same bytes.
	r.Prompt.Meta.Training = &prompt.Training{
		Steps: result.Steps, BestStep: result.BestStep, StopReason: result.StopReason,
		Optimizer: r.Config.Optimizer.Name, LearningRate: r.Config.LearningRate,
		BatchSize: r.Config.BatchSize, Rows: len(r.Rows.Train.Rows), Valid: Qualities(result),
		Version: r.version,
	}
}

// Qualities returns loss and accuracy of the best values on each validation set.
func Qualities(r *train.Result) map[string]prompt.Quality {
	valid := map[string]prompt.Quality{}
	for _, e := range r.Valid {
		valid[e.Set] = prompt.Quality{Loss: float64(e.Loss), Accuracy: e.Accuracy}
	}
	return valid
}
