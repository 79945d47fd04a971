package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/config"
	"ptune/internal/files"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/train"
)

type sweepOptions struct {
	set []string
	computeOptions
	json, quiet bool
}

func newSweep(s streams) *cobra.Command {
	var o sweepOptions
	cmd := &cobra.Command{
		Use:   "sweep sweep.yaml",
		Short: "Train prompts over a grid of settings, together on one base",
		Long: `Train a prompt for every combination of settings and rank them by validation loss. All runs go on in step on one loaded base, their rows in
the same passes over its weights; each prompt is the one its run alone would give. A sweep that was stopped goes on where it was when it is
started again. The file has these keys:

` + config.SweepReference + `
The output folder gets table.md, results.json, sweep.svg, best.st and in runs/ a folder for each run.`,
		Example: "  ptune sweep configs/sweep.yaml\n  ptune sweep configs/sweep.yaml --set train.steps=10 --json",
		Args:    cobra.ExactArgs(1),
		RunE:    does(func(ctx context.Context, args []string) error { return sweepTask(ctx, args[0], o, s) }),
	}
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "set a key of the task file for all runs (repeatable)")
	o.computeOptions.flags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print the results as JSON")
	cmd.Flags().BoolVar(&o.quiet, "quiet", false, "tell nothing on stderr but errors")
	return cmd
}

// sweepRun is one combination.
type sweepRun struct {
	Settings map[string]string `json:"settings"`
	Prompt   string            `json:"prompt"`
	Loss     report.Number     `json:"loss"`
	Accuracy *float64          `json:"accuracy,omitempty"`
	Steps    int               `json:"steps"`
	BestStep int               `json:"best_step"`
	Stop     string            `json:"stop_reason"`

	task *config.Task
	dir  string
	job  train.Job
	p    *prompt.Prompt
	rows *taskRows
}

// sweepTask is the whole sweep.
func sweepTask(ctx context.Context, path string, o sweepOptions, s streams) error {
	begin := time.Now()
	sw, err := config.LoadSweep(path)
	if err != nil {
		return wrong{err}
	}
	runs, err := sweepTasks(sw, o.set)
	if err != nil {
		return wrong{err}
	}
	if err := os.MkdirAll(sw.Dir, 0o755); err != nil {
		return wrong{fmt.Errorf("make the output folder: %w", err)}
	}
	unlock, err := lockFolder(sw.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := openBase(runs[0].task.Model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.close()
	if err := prepareRuns(runs, sw, b); err != nil {
		return err
	}
	if !o.quiet {
		s.tell("%s: %d runs on %s, up to %d steps each", path, len(runs), b.Name, mostSteps(runs))
	}
	if err := trainRuns(ctx, runs, sw, b, o, s); err != nil {
		return err
	}
	return reportSweep(sw, runs, o, s, time.Since(begin))
}

// sweepTasks are the tasks of all combinations; every mistake of any is found.
func sweepTasks(sw *config.Sweep, set []string) ([]*sweepRun, error) {
	all, err := sw.Runs()
	if err != nil {
		return nil, err
	}
	var runs []*sweepRun
	seen := map[string]bool{}
	var errs []error
	for _, settings := range all {
		task, err := config.Load(sw.Task, slices.Concat(set, settings))
		if err != nil {
			for line := range strings.Lines(err.Error()) { // the same mistake in many runs is one
				if line = strings.TrimSpace(line); !seen[line] {
					seen[line] = true
					errs = append(errs, errors.New(line))
				}
			}
			continue
		}
		r := &sweepRun{Settings: map[string]string{}, task: task}
		for _, v := range settings {
			key, value, _ := strings.Cut(v, "=")
			r.Settings[key] = value
		}
		runs = append(runs, r)
	}
	if len(errs) == 0 && len(runs[0].task.Data.Valid) == 0 && runs[0].task.Data.ValidFraction == 0 {
		errs = append(errs, fmt.Errorf("%s: data.valid is missing; a sweep ranks its runs by validation loss", sw.Task))
	}
	return runs, errors.Join(errs...)
}

// prepareRuns makes each run's start and the folder it has in the sweep's, named by all that the run depends on.
func prepareRuns(runs []*sweepRun, sw *config.Sweep, b *base) error {
	byTokens := map[int]*taskRows{} // how long rows may be depends on the prompt's length
	for _, r := range runs {
		rows := byTokens[r.task.Prompt.Tokens]
		if rows == nil {
			var err error
			if rows, err = loadRows(r.task, b); err != nil {
				return wrong{err}
			}
			byTokens[r.task.Prompt.Tokens] = rows
		}
		r.rows = rows
		identity := runIdentity(r.task, b, rows)
		h := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(identity)) {
			fmt.Fprintf(h, "%q %q\n", name, identity[name])
		}
		r.dir = filepath.Join(sw.Dir, "runs", hex.EncodeToString(h.Sum(nil))[:12])
		r.Prompt = filepath.Join(r.dir, "prompt.st")
		r.task.Output.Prompt, r.task.Output.Dir = r.Prompt, r.dir
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			return fmt.Errorf("make a run's folder: %w", err)
		}
		var err error
		if r.p, err = startPrompt(r.task, b, rows); err != nil {
			return wrong{err}
		}
		c, err := runConfig(r.task, b, rows, r.p)
		if err != nil {
			return wrong{err}
		}
		r.job = train.Job{Config: c, Values: r.p.Values, Examples: rows.examples(), Evaluate: rows.evaluate(b, r.task)}
	}
	return nil
}

func (r *sweepRun) resultPath() string { return filepath.Join(r.dir, "result.json") }
func (r *sweepRun) statePath() string  { return filepath.Join(r.dir, "state.safetensors") }

// finish keeps a run's result and prompt.
func (r *sweepRun) finish(c *train.Result) error {
	r.Loss, r.Steps, r.BestStep, r.Stop = report.Number(c.Loss), c.Steps, c.BestStep, c.StopReason
	r.Accuracy = meanAccuracy(c.Valid)
	r.p.Values = c.Best
	r.p.Meta.Training = trainingMeta(r.task, r.job.Config, r.rows, c)
	if err := r.p.Save(r.Prompt); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return files.WriteBytes(r.resultPath(), data)
}

// meanAccuracy is over the validation sets that have one.
func meanAccuracy(evals []report.Eval) *float64 {
	sum, n := 0.0, 0
	for _, e := range evals {
		if e.Accuracy != nil {
			sum, n = sum+*e.Accuracy, n+1
		}
	}
	if n == 0 {
		return nil
	}
	sum /= float64(n)
	return &sum
}

// trainRuns trains the runs that have no result yet, those that have a state from there on.
func trainRuns(ctx context.Context, runs []*sweepRun, sw *config.Sweep, b *base, o sweepOptions, s streams) error {
	var left []*sweepRun
	var jobs []train.Job
	halvedPath := filepath.Join(sw.Dir, "halved.json")
	halved := map[string]int{} // the runs that were cut, by folder, and the step
	if data, err := os.ReadFile(halvedPath); err == nil {
		if err := json.Unmarshal(data, &halved); err != nil {
			return fmt.Errorf("read %q: %w", halvedPath, err)
		}
	}
	for _, r := range runs {
		if data, err := os.ReadFile(r.resultPath()); err == nil {
			settings, path := r.Settings, r.Prompt
			if err := json.Unmarshal(data, r); err != nil {
				return fmt.Errorf("read %q: %w", r.resultPath(), err)
			}
			r.Settings, r.Prompt = settings, path
			continue
		}
		job := r.job
		var err error
		if job.From, _, err = train.LoadState(r.statePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.warn("%v; the run begins again", err)
			job.From = nil
		}
		_, job.Halved = halved[filepath.Base(r.dir)]
		job.Save = func(state *train.State) error { return state.Save(r.statePath()) }
		job.Done = r.finish
		left, jobs = append(left, r), append(jobs, job)
	}
	if len(jobs) == 0 {
		return nil
	}
	if err := planSweep(left[0].task, b, jobs); err != nil {
		return err
	}
	shown := report.SweepText(s.err, len(jobs), 2*time.Second)
	for i := range jobs {
		jobs[i].Tell = func(report.Event) {}
		if !o.quiet {
			jobs[i].Tell = shown
		}
	}
	h := train.Halving{Keep: sw.Halving, Tell: func(step int, out []int) error {
		for _, i := range out {
			halved[filepath.Base(left[i].dir)] = step
		}
		data, err := json.Marshal(halved)
		if err != nil {
			return err
		}
		if !o.quiet {
			s.tell("step %d: %d of the runs left are cut", step, len(out))
		}
		return files.WriteBytes(halvedPath, data)
	}}
	if sw.Halving > 0 {
		h.At = rungs(mostSteps(runs), sw.Halving, sw.Rungs, runs[0].job.EvalEvery)
	}
	b.closeText()
	_, errs := train.RunTogether(ctx, b, jobs, h)
	for i, err := range errs {
		if errors.Is(err, train.ErrDiverged) { // that is a result, too
			s.warn("%s: %v", left[i].name(), err)
			errs[i] = nil
		}
	}
	if ctx.Err() != nil {
		return withHint(context.Cause(ctx), "the same command goes on where the sweep was")
	}
	return errors.Join(errs...)
}

// rungs are the steps at which runs are cut: the last at one in keep of all steps, each other at one in keep of the next, all moved
// to where the runs are evaluated next.
func rungs(steps, keep, n, every int) []int {
	var at []int
	for range n {
		steps /= keep
		if s := (steps + every - 1) / every * every; s > 0 && !slices.Contains(at, s) {
			at = append(at, s)
		}
	}
	slices.Reverse(at)
	return at
}

func mostSteps(runs []*sweepRun) int {
	most := 0
	for _, r := range runs {
		most = max(most, r.job.Steps)
	}
	return most
}

// planSweep fits the first step of all runs into memory.
func planSweep(task *config.Task, b *base, jobs []train.Job) error {
	forests := train.FirstBatches(jobs)
	return b.fit(task, func() (rows int, bytes int64, err error) {
		for _, f := range forests {
			p, err := b.Plan(f)
			if err != nil {
				return 0, 0, err
			}
			rows, bytes = max(rows, p.Rows), max(bytes, b.WeightBytes()+programBytes(p.Bytes, p.Packed))
		}
		return rows, bytes, nil
	})
}

// name is a run's settings in short.
func (r *sweepRun) name() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(r.Settings)) {
		parts = append(parts, key[strings.IndexByte(key, '.')+1:]+" "+r.Settings[key])
	}
	return strings.Join(parts, ", ")
}
