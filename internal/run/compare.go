package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/param"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

// The methods that a comparison knows, by their names on the command line.
const (
	MethodBase   = "base" // no training
	MethodPrompt = "prompt"
	MethodLoRA   = "lora"
	MethodFull   = "full" // all weights
)

// methodFiles are what the methods write to output.dir.
var methodFiles = map[string]string{
	MethodPrompt: "prompt.st", MethodLoRA: "lora/adapter_model.safetensors", MethodFull: "full.safetensors",
}

// Methods returns the methods in the order of a comparison's table.
func Methods() []string { return []string{MethodBase, MethodPrompt, MethodLoRA, MethodFull} }

// MethodOptions are what a comparison takes beside the task.
type MethodOptions struct {
	Methods  []string
	Data     string // rows to measure on; empty: the validation rows
	Output   string // folder; empty: output.dir
	LoRA     prompt.LoRAConfig
	LoRARate float64 // learning rate
	FullRate float64 // learning rate
}

// Check returns the mistakes of the options.
func (o MethodOptions) Check() error {
	var errs []error
	for _, m := range o.Methods {
		if !slices.Contains(Methods(), m) {
			errs = append(errs, fmt.Errorf("--methods has %q, want base, prompt, lora and full", m))
		}
	}
	if o.LoRA.Rank < 1 || !(o.LoRA.Alpha > 0) || !(o.LoRARate > 0) || !(o.FullRate > 0) {
		errs = append(errs,
			errors.New("--lora-rank, --lora-alpha, --lora-rate and --full-rate must be above 0"))
	}
	return errors.Join(errs...)
}

// MethodResult is what one method reached and what it took.
type MethodResult struct {
	Method       string        `json:"method"`
	Loss         report.Number `json:"loss"`
	Accuracy     *float64      `json:"accuracy,omitempty"`
	Parameters   int           `json:"trained_parameters"`
	LearningRate float64       `json:"learning_rate,omitempty"`
	Steps        int           `json:"steps"`
	StepSeconds  float64       `json:"step_seconds,omitempty"` // median
	PeakMemory   int64         `json:"peak_memory_bytes"`
	FileBytes    int64         `json:"file_bytes"`
	SwitchTime   float64       `json:"switch_seconds,omitempty"` // to load another task's file
	Failed       string        `json:"failed,omitempty"`
}

// MethodTable returns the table of a comparison.
func MethodTable(methods []MethodResult) report.Table {
	t := report.Table{Head: []string{
		"", "accuracy", "loss", "trained parameters", "peak memory", "a step", "file", "load a task",
	}}
	for _, m := range methods {
		row := make([]string, len(t.Head))
		t.Rows = append(t.Rows, row)
		row[0] = m.Method
		if m.Failed != "" {
			row[1] = m.Failed
			continue
		}
		if m.Accuracy != nil {
			row[1] = fmt.Sprintf("%.4f", *m.Accuracy)
		}
		row[2] = fmt.Sprintf("%.4f", float64(m.Loss))
		row[3], row[4] = fmt.Sprint(m.Parameters), report.BytesText(m.PeakMemory)
		if m.Steps > 0 {
			row[5] = report.SecondsText(m.StepSeconds)
			row[6], row[7] = report.BytesText(m.FileBytes), report.SecondsText(m.SwitchTime)
		}
	}
	return t
}

// LoadComparison reads a task whose methods are compared. It returns the mistakes of the task and of the
// options.
func LoadComparison(path string, set []string, o MethodOptions) (*config.Task, error) {
	if path == config.Stdin {
		return nil, failure.Usage(errors.New("compare reads the task once for each method, " +
			"so it cannot be standard input"))
	}
	if o.Output != "" {
		set = append(set[:len(set):len(set)], "output.dir="+o.Output)
	}
	task, err := config.Load(path, set)
	if err == nil && o.Data == "" && len(task.Data.Valid) == 0 && task.Data.ValidFraction == 0 {
		err = fmt.Errorf("%s: data.valid is missing; there are no rows to measure on", path)
	}
	if err == nil && task.Train.Best == train.BestExactMatch {
		err = fmt.Errorf("%s: train.best is exact_match, which compare cannot measure for LoRA and full "+
			"fine-tuning; set another", path)
	}
	if err = errors.Join(o.Check(), err); err != nil {
		return nil, failure.Usage(err)
	}
	task.Output.Dir = filepath.Join(outputDir(task), "compare")
	for _, name := range o.Methods {
		if file := methodFiles[name]; file != "" {
			if err := files.CheckWithFolder(filepath.Join(task.Output.Dir, file)); err != nil {
				return nil, failure.Usage(err)
			}
		}
	}
	return task, nil
}

// Compare trains and measures one method of a comparison. Its files are in output.dir. The peak
// memory of its result is that of this process.
func Compare(ctx context.Context, task *config.Task, b *base.Base, name string, o MethodOptions,
	version string, tell report.Func) (MethodResult, error) {
	if err := os.MkdirAll(task.Output.Dir, 0o755); err != nil {
		return MethodResult{}, failure.Usage(fmt.Errorf("make the output folder: %w", err))
	}
	r, err := Open(ctx, task, b, version)
	if err != nil {
		return MethodResult{}, err
	}
	if err := b.CheckWeights(); err != nil {
		return MethodResult{}, err
	}
	if slices.Contains(o.Methods, MethodLoRA) { // find a mistake before the first method trains
		if _, err := r.newLoRA(o.LoRA); err != nil {
			return MethodResult{}, err
		}
	}
	m, err := r.method(ctx, name, o)
	if err != nil {
		return MethodResult{}, err
	}
	if name == o.Methods[0] {
		for _, note := range r.Notes() {
			tell(note)
		}
	}
	b.CloseTokenizer()
	process.FreeMemory()
	if err := m.train(ctx, tell); err != nil {
		return MethodResult{}, err
	}
	m.result.PeakMemory = process.PeakMemory() // of training; measuring loads files once more
	return m.result, m.measure(ctx)
}

// method is a run of one method of a comparison.
type method struct {
	result MethodResult

	run      *Run
	options  MethodOptions
	plan     Plan
	measured []*data.Set
	tell     report.Func
	seconds  []float64    // of each step
	load     func() error // loads a task's file, as switching to another task does
}

// method prepares the run to train by a method: it reads the rows to measure on and plans the memory.
func (r *Run) method(ctx context.Context, name string, o MethodOptions) (*method, error) {
	m := &method{result: MethodResult{Method: name}, run: r, options: o, measured: r.Rows.Valid}
	if o.Data != "" {
		limits, err := r.Rows.limits(r.Task, r.Base)
		if err != nil {
			return nil, failure.Usage(err)
		}
		set, err := data.Load("test", Source(ctx, r.Task, o.Data), r.Rows.Format, r.Base.Tokenizer, limits)
		if err != nil {
			return nil, failure.Usage(err)
		}
		m.measured = []*data.Set{set}
	}
	if name != MethodPrompt { // each part of a packed batch would add a pass over the weights' gradients
		r.Config.PackedTokens = r.Task.Train.MicroBatchTokens
	}
	var err error
	m.plan, err = r.Plan(false)
	return m, err
}

// newLoRA returns the LoRA before the first step.
func (r *Run) newLoRA(c prompt.LoRAConfig) (*prompt.LoRA, error) {
	lora, err := prompt.NewLoRA(c, r.Base.Type, r.Base.Modules(), r.Task.Train.Seed)
	return lora, failure.Usage(err)
}

// told notes the time of each step and passes the event on.
func (m *method) told(e report.Event) {
	if step, ok := e.(report.Step); ok {
		m.seconds = append(m.seconds, step.Seconds)
	}
	m.tell(e)
}

// train trains by the method, saves the best parameters and leaves them loaded.
func (m *method) train(ctx context.Context, tell report.Func) error {
	m.tell = tell
	defer StopWith(ctx, m.run.Base)()
	r, file := m.run, filepath.Join(m.run.Task.Output.Dir, methodFiles[m.result.Method])
	switch m.result.Method {
	case MethodBase:
		return nil
	case MethodPrompt:
		return m.trainPrompt(ctx, file)
	case MethodLoRA:
		lora, err := r.newLoRA(m.options.LoRA)
		if err != nil {
			return err
		}
		adapter, err := r.Base.NewLoRA(lora.Params, lora.Scale())
		if err != nil {
			return err
		}
		r.Base.Attach(adapter)
		r.Config.LearningRate = m.options.LoRARate
		dir := filepath.Dir(file)
		m.load = func() error { return lora.Fill(dir) }
		save := func() error { return lora.Save(dir, r.Base.Name) }
		return m.tune(ctx, lora.Params, file, save)
	}
	adapter, params := r.Base.CopyWeights()
	r.Base.Attach(adapter)
	defer os.Remove(file)
	r.Config.LearningRate = m.options.FullRate
	m.load = func() error { return prompt.FillParams(file, params) }
	return m.tune(ctx, params, file, func() error { return prompt.SaveParams(file, params) })
}

func (m *method) trainPrompt(ctx context.Context, file string) error {
	m.plan.apply(m.run.Base)
	job := m.run.Job(m.told)
	result, err := train.Run(ctx, m.run.Base, job)
	if err != nil {
		return err
	}
	m.run.keep(result)
	if err := m.run.Save(file, result); err != nil {
		return err
	}
	m.load = func() error {
		_, err := prompt.Load(file)
		return err
	}
	return m.trained(result.Steps, len(m.run.Prompt.Values), file)
}

func (m *method) tune(ctx context.Context, params []*param.Tensor, file string,
	save func() error) error {
	r := m.run
	m.plan.apply(r.Base)
	job := train.Job{
		Config: r.Config, Params: params, Examples: r.Rows.examples(), Best: save, Tell: m.told,
	}
	if len(r.Rows.Valid) > 0 {
		job.Evaluate = func(ctx context.Context, _ []float32) ([]report.Eval, error) {
			return r.Rows.measure(ctx, r.Base, r.Rows.Valid, nil, nil,
				measuring{maxTokens: r.Task.Train.MicroBatchTokens, tell: m.told})
		}
	}
	result, err := train.Run(ctx, r.Base, job)
	if err != nil {
		return err
	}
	if m.result.Method == MethodLoRA {
		if err := m.loraResult(file, result).write(filepath.Dir(file)); err != nil {
			return err
		}
	}
	n := 0
	for _, p := range params {
		n += len(p.Values)
	}
	return m.trained(result.Steps, n, file)
}

// loraResult returns the result of training the LoRA in file.
func (m *method) loraResult(file string, t *train.Result) Result {
	r := m.run.result(MethodLoRA, filepath.Dir(file), file, t)
	r.Identity = maps.Clone(r.Identity)
	r.Identity["lora_rank"] = fmt.Sprint(m.options.LoRA.Rank)
	r.Identity["lora_alpha"] = fmt.Sprint(m.options.LoRA.Alpha)
	r.Identity["lora_targets"] = fmt.Sprint(m.options.LoRA.Targets)
	r.Identity["train.learning_rate"] = fmt.Sprint(m.options.LoRARate)
	return r
}

// trained notes what the training took, and loads its best parameters as another task's would be.
func (m *method) trained(steps, parameters int, file string) error {
	m.result.Steps, m.result.Parameters = steps, parameters
	m.result.LearningRate = m.run.Config.LearningRate
	slices.Sort(m.seconds)
	m.result.StepSeconds = m.seconds[len(m.seconds)/2]
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	m.result.FileBytes = info.Size()
	m.result.SwitchTime = math.Inf(1)
	for range 3 {
		begin := time.Now()
		if err := m.load(); err != nil {
			return err
		}
		m.result.SwitchTime = min(m.result.SwitchTime, time.Since(begin).Seconds())
	}
	return nil
}

// measure evaluates what was trained: the means of loss and accuracy over the sets to measure on.
func (m *method) measure(ctx context.Context) error {
	r := m.run
	var values []float32
	var promptRows []int
	if m.result.Method == MethodPrompt {
		values, promptRows = r.Prompt.Values, []int{r.Prompt.Rows}
	}
	tokens := r.Task.Train.MicroBatchTokens
	evals, err := r.Rows.measure(ctx, r.Base, m.measured, values, promptRows,
		measuring{maxTokens: tokens, tell: m.tell})
	if err != nil {
		return err
	}
	var loss, accuracy float64
	for _, e := range evals {
		loss += float64(e.Loss) / float64(len(evals))
		if e.Accuracy != nil {
			accuracy += *e.Accuracy / float64(len(evals))
			m.result.Accuracy = &accuracy
		}
	}
	m.result.Loss = report.Number(loss)
	return nil
}
