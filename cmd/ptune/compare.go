package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/model"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

type compareOptions struct {
	set      []string
	methods  []string
	data     string
	lora     model.LoRA
	loraRate float64
	fullRate float64
	only     string // this process trains one method for another that shows the table
	computeOptions
	json, markdown, quiet bool
}

// The methods that compare knows, by their names on the command line.
const (
	methodBase   = "base"
	methodPrompt = "prompt"
	methodLoRA   = "lora"
	methodFull   = "full"
)

func newCompare(s streams) *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare task.yaml",
		Short: "Compare prompt tuning with LoRA and full fine-tuning on a task",
		Long: `Train the same base on the same rows, batches and steps by prompt tuning, by LoRA and by full fine-tuning, and put side by side what each
gives and takes: quality on the validation rows (or --data), trained parameters, peak memory, time of a step, size of the file that a task
leaves, and the time to load another task's. Each method runs in a process of its own, so that its memory is its own.

All methods use the task's optimizer and schedule; LoRA and full fine-tuning have learning rates of their own. The LoRA is left in
compare/lora in the output folder, as PEFT reads it; the fully tuned weights are measured and removed.`,
		Example: "  ptune compare configs/sentiment.yaml --set train.steps=20\n  ptune compare configs/sentiment.yaml --set train.steps=20 --methods prompt,lora --lora-rank 4 --markdown",
		Args:    cobra.ExactArgs(1),
		RunE: does(func(ctx context.Context, args []string) error {
			if o.only != "" {
				return compareOne(ctx, args[0], o, s)
			}
			return compareAll(ctx, args[0], o, s)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.set, "set", nil, "set a key of the task file (repeatable)")
	f.StringSliceVar(&o.methods, "methods", []string{methodBase, methodPrompt, methodLoRA, methodFull}, "what to compare")
	f.StringVar(&o.data, "data", "", "rows to measure on, if not the validation rows")
	f.IntVar(&o.lora.Rank, "lora-rank", 8, "rank of the LoRA")
	f.Float64Var(&o.lora.Alpha, "lora-alpha", 16, "LoRA's alpha: its product is multiplied by alpha/rank")
	f.StringSliceVar(&o.lora.Targets, "lora-targets", nil, "modules that get a LoRA (PEFT's choice for the model; all-linear: every one)")
	f.Float64Var(&o.loraRate, "lora-rate", 1e-3, "learning rate of LoRA")
	f.Float64Var(&o.fullRate, "full-rate", 1e-4, "learning rate of full fine-tuning")
	f.StringVar(&o.only, "only", "", "")
	f.MarkHidden("only")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the results as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print the table as Markdown")
	f.BoolVar(&o.quiet, "quiet", false, "tell nothing on stderr but errors")
	return cmd
}

// method is what one method gave and took.
type method struct {
	Method       string        `json:"method"`
	Loss         report.Number `json:"loss"`
	Accuracy     *float64      `json:"accuracy,omitempty"`
	Parameters   int           `json:"trained_parameters"`
	LearningRate float64       `json:"learning_rate,omitempty"`
	Steps        int           `json:"steps"`
	StepSeconds  float64       `json:"step_seconds,omitempty"` // the median
	PeakMemory   int64         `json:"peak_memory_bytes"`
	FileBytes    int64         `json:"file_bytes"`
	SwitchTime   float64       `json:"switch_seconds,omitempty"` // to load another task's file
	Failed       string        `json:"failed,omitempty"`
}

// compareAll runs each method in a process of its own and shows what came of them.
func compareAll(ctx context.Context, path string, o compareOptions, s streams) error {
	if o.json && o.markdown {
		return wrong{errors.New("--json and --markdown exclude each other")}
	}
	if _, err := compareTask(path, o); err != nil {
		return wrong{err}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	var methods []method
	for _, name := range o.methods {
		args := []string{"compare", path, "--only", name, "--data", o.data, "--threads", fmt.Sprint(o.threads), "--compute", o.compute,
			"--lora-rank", fmt.Sprint(o.lora.Rank), "--lora-alpha", fmt.Sprint(o.lora.Alpha), "--lora-targets", strings.Join(o.lora.Targets, ","),
			"--lora-rate", fmt.Sprint(o.loraRate), "--full-rate", fmt.Sprint(o.fullRate), fmt.Sprintf("--quiet=%t", o.quiet)}
		for _, set := range o.set {
			args = append(args, "--set", set)
		}
		cmd := exec.CommandContext(ctx, exe, args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, s.err
		if !o.quiet {
			s.tell("%s:", name)
		}
		err := cmd.Run()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m := method{Method: name}
		if err != nil {
			var e *exec.ExitError
			switch errors.As(err, &e); {
			case e != nil && e.ExitCode() == exitDiverged:
				m.Failed = "diverged"
			case e != nil && e.ExitCode() == exitUsage:
				return wrong{fmt.Errorf("%s could not be compared", name)} // the process has said why
			default:
				return fmt.Errorf("compare %s: %w", name, err)
			}
		} else if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			return fmt.Errorf("%s: read its result: %w", name, err)
		}
		methods = append(methods, m)
	}
	if o.json {
		return json.NewEncoder(s.out).Encode(map[string]any{"methods": methods})
	}
	return printMethods(s, methods, o.markdown)
}

func printMethods(s streams, methods []method, markdown bool) error {
	head := []string{"", "accuracy", "loss", "trained parameters", "peak memory", "a step", "file", "load a task"}
	var rows [][]string
	for _, m := range methods {
		if m.Failed != "" {
			rows = append(rows, []string{m.Method, m.Failed, "", "", "", "", "", ""})
			continue
		}
		row := []string{m.Method, "", fmt.Sprintf("%.4f", float64(m.Loss)), fmt.Sprint(m.Parameters), bytesText(m.PeakMemory), "", "", ""}
		if m.Accuracy != nil {
			row[1] = fmt.Sprintf("%.4f", *m.Accuracy)
		}
		if m.Steps > 0 {
			row[5], row[6], row[7] = secondsText(m.StepSeconds), bytesText(m.FileBytes), secondsText(m.SwitchTime)
		}
		rows = append(rows, row)
	}
	if markdown {
		return markdownTable(s.out, head, rows)
	}
	return textTable(s.out, head, rows)
}

// textTable writes a table for a terminal.
func textTable(to io.Writer, head []string, rows [][]string) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, r := range append([][]string{head}, rows...) {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// markdownTable writes a table as Markdown.
func markdownTable(w io.Writer, head []string, rows [][]string) error {
	text := fmt.Sprintf("| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = strings.ReplaceAll(c, "|", "\\|")
		}
		text += fmt.Sprintf("| %s |\n", strings.Join(cells, " | "))
	}
	_, err := io.WriteString(w, text)
	return err
}

// bytesText is a size as people say it.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// secondsText is a time as people say it.
func secondsText(s float64) string {
	if s >= 1 {
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.3g ms", s*1000)
}

// compareTask reads the task, and finds mistakes of the command line.
func compareTask(path string, o compareOptions) (*config.Task, error) {
	var errs []error
	for _, m := range o.methods {
		if !slices.Contains([]string{methodBase, methodPrompt, methodLoRA, methodFull}, m) {
			errs = append(errs, fmt.Errorf("--methods has %q, want base, prompt, lora and full", m))
		}
	}
	if o.lora.Rank < 1 || !(o.lora.Alpha > 0) || !(o.loraRate > 0) || !(o.fullRate > 0) {
		errs = append(errs, errors.New("--lora-rank, --lora-alpha, --lora-rate and --full-rate must be above 0"))
	}
	task, err := config.Load(path, o.set)
	if err == nil && o.data == "" && len(task.Data.Valid) == 0 && task.Data.ValidFraction == 0 {
		err = fmt.Errorf("%s: data.valid is missing; there are no rows to measure on", path)
	}
	return task, errors.Join(append(errs, err)...)
}

// compareOne trains and measures one method and prints its result as JSON.
func compareOne(ctx context.Context, path string, o compareOptions, s streams) error {
	task, err := compareTask(path, o)
	if err != nil {
		return wrong{err}
	}
	task.Output.Dir = filepath.Join(cmp.Or(task.Output.Dir, filepath.Dir(task.Output.Prompt)), "compare")
	if err := os.MkdirAll(task.Output.Dir, 0o755); err != nil {
		return wrong{fmt.Errorf("make the output folder: %w", err)}
	}
	b, err := openBase(task.Model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.close()
	rows, err := loadRows(task, b)
	if err != nil {
		return wrong{err}
	}
	measured := rows.valid
	if o.data != "" {
		limits, err := rowLimits(b, task.Prompt.Tokens, task.Data.MaxTokens, task.Data.OnTooLong, rows.eos)
		if err != nil {
			return wrong{err}
		}
		set, err := data.Load("test", source(task, o.data), rows.format, b.tok, limits)
		if err != nil {
			return wrong{err}
		}
		measured = []*data.Set{set}
	}
	p, err := startPrompt(task, b, rows)
	if err != nil {
		return wrong{err}
	}
	c, err := runConfig(task, b, rows, p)
	if err != nil {
		return wrong{err}
	}
	if o.only != methodPrompt { // gradients of other weights are one more thing to go through for each part
		c.PackedTokens = task.Train.MicroBatchTokens
	}
	if _, err := planRun(task, b, c, rows, false); err != nil {
		return err
	}
	b.closeText()
	run := &comparison{task: task, b: b, rows: rows, c: c, o: o, p: p, m: method{Method: o.only}, tell: func(report.Event) {}}
	if !o.quiet {
		run.tell = report.Text(s.err, 2*time.Second)
	}
	if err := run.train(ctx); err != nil {
		return err
	}
	run.m.PeakMemory = process.PeakMemory() // of training: what is loaded below is loaded once more
	if err := run.measure(ctx, measured); err != nil {
		return err
	}
	return json.NewEncoder(s.out).Encode(run.m)
}

// comparison is the run of one method.
type comparison struct {
	task  *config.Task
	b     *base
	rows  *taskRows
	c     train.Config
	o     compareOptions
	p     *prompt.Prompt
	m     method
	tell  report.Func
	steps []float64 // seconds of each

	load func() error // a task's file
}

func (r *comparison) told(e report.Event) {
	if step, ok := e.(report.Step); ok {
		r.steps = append(r.steps, step.Seconds)
	}
	r.tell(e)
}

// train trains by the method and leaves the best parameters loaded.
func (r *comparison) train(ctx context.Context) error {
	at := func(name string) string { return filepath.Join(r.task.Output.Dir, name) }
	var params []*model.Param
	var err error
	switch r.o.only {
	case methodBase:
		return nil
	case methodPrompt:
		return r.trainPrompt(ctx, at("prompt.st"))
	case methodLoRA:
		if params, err = r.b.AddLoRA(r.o.lora, r.task.Train.Seed); err != nil {
			return wrong{err}
		}
		r.c.LearningRate = r.o.loraRate
		r.load = func() error { return r.b.FillLoRA(at("lora"), params) }
		return r.tune(ctx, params, at("lora/adapter_model.safetensors"), func() error { return r.b.SaveLoRA(at("lora"), r.b.Name, r.o.lora, params) })
	}
	params = r.b.TrainAll()
	file := at("full.safetensors")
	defer os.Remove(file)
	r.c.LearningRate = r.o.fullRate
	r.load = func() error { return r.b.FillParams(file, "", params) }
	return r.tune(ctx, params, file, func() error { return model.SaveParams(file, params) })
}

func (r *comparison) trainPrompt(ctx context.Context, file string) error {
	result, err := train.Run(ctx, r.b, train.Job{Config: r.c, Values: r.p.Values, Examples: r.rows.examples(), Evaluate: r.rows.evaluate(r.b, r.task), Tell: r.told})
	if err != nil {
		return err
	}
	r.p.Values = result.Best
	r.p.Meta.Training = trainingMeta(r.task, r.c, r.rows, result)
	if err := r.p.Save(file); err != nil {
		return err
	}
	r.load = func() error {
		_, err := prompt.Load(file)
		return err
	}
	return r.trained(result.Steps, len(r.p.Values), file)
}

func (r *comparison) tune(ctx context.Context, params []*model.Param, file string, save func() error) error {
	job := train.Job{Config: r.c, Params: params, Examples: r.rows.examples(), Best: save, Tell: r.told}
	if len(r.rows.valid) > 0 {
		job.Evaluate = func(ctx context.Context, _ []float32) ([]report.Eval, error) {
			return r.rows.measure(ctx, r.b, nil, nil, r.task.Train.MicroBatchTokens)
		}
	}
	result, err := train.Run(ctx, r.b, job)
	if err != nil {
		return err
	}
	n := 0
	for _, p := range params {
		n += len(p.Values)
	}
	return r.trained(result.Steps, n, file)
}

// trained notes what the training took and loads its best parameters, as another task's would be.
func (r *comparison) trained(steps, parameters int, file string) error {
	r.m.Steps, r.m.Parameters, r.m.LearningRate = steps, parameters, r.c.LearningRate
	slices.Sort(r.steps)
	r.m.StepSeconds = r.steps[len(r.steps)/2]
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	r.m.FileBytes = info.Size()
	r.m.SwitchTime = math.Inf(1)
	for range 3 {
		begin := time.Now()
		if err := r.load(); err != nil {
			return err
		}
		r.m.SwitchTime = min(r.m.SwitchTime, time.Since(begin).Seconds())
	}
	return nil
}

// measure evaluates what was trained on the sets: the mean of their losses and accuracies.
func (r *comparison) measure(ctx context.Context, sets []*data.Set) error {
	var values []float32
	var promptRows []int
	if r.o.only == methodPrompt {
		values, promptRows = r.p.Values, []int{r.p.Rows}
	}
	var loss, accuracy float64
	for _, set := range sets {
		res, err := eval.Run(ctx, r.b, values, evalRows(set), evalOptions(r.rows.choices, r.rows.eos, promptRows, r.task.Train.MicroBatchTokens))
		if err != nil {
			return fmt.Errorf("evaluate %s: %w", set.Path, err)
		}
		loss += res.Loss / float64(len(sets))
		if res.Accuracy != nil {
			accuracy += *res.Accuracy / float64(len(sets))
			r.m.Accuracy = &accuracy
		}
	}
	r.m.Loss = report.Number(loss)
	return nil
}
