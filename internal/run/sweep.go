package run

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

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/process"
	"ptune/internal/report"
	"ptune/internal/train"
)

// Sweep is the runs of all combinations of a sweep file's settings.
type Sweep struct {
	*config.Sweep
	Runs []*SweepRun

	base    *base.Base
	pending []*SweepRun    // the runs without a result
	halved  map[string]int // folder of each run that halving ended, and the step
	stuck   []string       // warnings
}

// SweepRun is one combination of settings. Its exported fields are its result.
type SweepRun struct {
	Settings map[string]string `json:"settings"`
	Prompt   string            `json:"prompt"`
	Loss     report.Number     `json:"loss"`
	Accuracy *float64          `json:"accuracy,omitempty"`
	Steps    int               `json:"steps"`
	BestStep int               `json:"best_step"`
	Stop     string            `json:"stop_reason"`

	task *config.Task
	dir  string
	run  *Run
	job  train.Job
}

// LoadSweep reads a sweep file and the tasks of all its combinations. set are settings for all of them; a
// dir that is not empty replaces the file's output. It returns every mistake of any of them.
func LoadSweep(path, dir string, set []string) (*Sweep, error) {
	file, err := config.LoadSweep(path, dir)
	if err != nil {
		return nil, failure.Usage(err)
	}
	combinations, err := file.Runs()
	if err != nil {
		return nil, failure.Usage(err)
	}
	s := &Sweep{Sweep: file, halved: map[string]int{}}
	seen := map[string]bool{}
	var errs []error
	for _, settings := range combinations {
		task, err := config.Load(file.Task, slices.Concat(set, settings))
		if err != nil {
			for line := range strings.Lines(err.Error()) { // report a mistake of several runs once
				if line = strings.TrimSpace(line); !seen[line] {
					seen[line] = true
					errs = append(errs, errors.New(line))
				}
			}
			continue
		}
		r := &SweepRun{Settings: map[string]string{}, task: task}
		for _, v := range settings {
			key, value, _ := strings.Cut(v, "=")
			r.Settings[key] = value
		}
		s.Runs = append(s.Runs, r)
	}
	if len(errs) == 0 && len(s.Runs[0].task.Data.Valid) == 0 && s.Runs[0].task.Data.ValidFraction == 0 {
		errs = append(errs, fmt.Errorf(
			"%s: data.valid is missing; a sweep ranks its runs by validation loss", file.Task))
	}
	return s, failure.Usage(errors.Join(errs...))
}

// Warnings returns what the user should know about the task file.
func (s *Sweep) Warnings() []string { return s.Runs[0].task.Warnings() }

// Notes returns the notes of all runs, each once.
func (s *Sweep) Notes() []report.Note {
	var notes []report.Note
	for _, r := range s.Runs {
		for _, note := range r.run.Notes() {
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// Model returns the base model that all runs share.
func (s *Sweep) Model() string { return s.Runs[0].task.Model }

// Open opens all runs on the base. Each gets a folder in the sweep's, named by a hash of everything its
// numbers depend on, so that a repeated sweep finds its results.
func (s *Sweep) Open(ctx context.Context, b *base.Base, version string) error {
	s.base = b
	if err := b.CheckWeights(); err != nil {
		return err
	}
	byTokens := map[int]*Rows{} // rows depend on the prompt's length, which limits theirs
	for _, r := range s.Runs {
		rows := byTokens[r.task.Prompt.Tokens]
		if rows == nil {
			var err error
			if rows, err = loadAllRows(ctx, r.task, b); err != nil {
				return failure.Usage(err)
			}
			byTokens[r.task.Prompt.Tokens] = rows
		}
		rows = rows.sampled(r.task.Train.EvalRows, r.task.Train.Seed)
		id := identity(r.task, b, rows)
		h := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(id)) {
			fmt.Fprintf(h, "%q %q\n", name, id[name])
		}
		r.dir = filepath.Join(s.Dir, "runs", hex.EncodeToString(h.Sum(nil))[:12])
		r.Prompt = filepath.Join(r.dir, "prompt.st")
		r.task.Output.Prompt, r.task.Output.Dir = r.Prompt, r.dir
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			return fmt.Errorf("make a run's folder: %w", err)
		}
		var err error
		if r.run, err = openWith(r.task, b, rows, id, version); err != nil {
			return err
		}
		r.job = r.run.Job(nil)
	}
	return nil
}

// MakeFolder makes the sweep's folder, or returns why its results could not be written there.
func (s *Sweep) MakeFolder() error {
	for _, name := range []string{bestFile, jsonFile, tableFile, chartFile, "runs/x"} {
		if err := files.CheckWithFolder(filepath.Join(s.Dir, name)); err != nil {
			return failure.Usage(err)
		}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return failure.Usage(fmt.Errorf("make the output folder: %w", err))
	}
	return nil
}

// MostSteps returns the steps of the longest run.
func (s *Sweep) MostSteps() int {
	most := 0
	for _, r := range s.Runs {
		most = max(most, r.job.Steps)
	}
	return most
}

func (r *SweepRun) resultPath() string { return filepath.Join(r.dir, resultFile) }

func (s *Sweep) halvedPath() string { return filepath.Join(s.Dir, "halved.json") }

// Resume reads what an earlier start of the sweep left: results, and states to continue from. It
// returns the number of runs that are left to train, and warnings of states that it cannot use.
func (s *Sweep) Resume() (pending int, warnings []string, err error) {
	if data, err := os.ReadFile(s.halvedPath()); err == nil {
		if err := json.Unmarshal(data, &s.halved); err != nil {
			return 0, nil, fmt.Errorf("read %q: %w", s.halvedPath(), err)
		}
	}
	for _, r := range s.Runs {
		if data, err := os.ReadFile(r.resultPath()); err == nil {
			settings, path := r.Settings, r.Prompt
			if err := json.Unmarshal(data, r); err != nil {
				return 0, nil, fmt.Errorf("read %q: %w", r.resultPath(), err)
			}
			r.Settings, r.Prompt = settings, path
			continue
		}
		from, _, err := train.LoadState(statePath(r.dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			warnings = append(warnings, fmt.Sprintf("%v; the run starts from the beginning", err))
			from = nil
		}
		r.job.From = from
		_, r.job.Halved = s.halved[filepath.Base(r.dir)]
		s.pending = append(s.pending, r)
	}
	return len(s.pending), warnings, nil
}

// Plan returns how the first step of all pending runs together fits into memory.
func (s *Sweep) Plan() (Plan, error) {
	return fit(s.base, s.pending[0].task, train.FirstBatches(s.jobs(nil)), process.AvailableMemory())
}

// jobs returns the jobs of the pending runs.
func (s *Sweep) jobs(tell report.Func) []train.Job {
	var jobs []train.Job
	for _, r := range s.pending {
		job := r.job
		job.Done = r.finish
		job.Tell = func(e report.Event) {
			if stuck, ok := e.(report.Stuck); ok {
				s.stuck = append(s.stuck, fmt.Sprintf("%s: step %d: %v", r.Name(), stuck.Step, stuck))
			}
			tell(e)
		}
		job.Evaluate = r.run.Rows.evaluate(s.base, r.task, tell)
		job.Save = func(state *train.State) error { return state.Save(statePath(r.dir)) }
		jobs = append(jobs, job)
	}
	return jobs
}

// Train trains the pending runs together as planned. tellHalved is called with the number of runs
// that halving ends after a step. A run that is stuck or diverges is a warning, for that is a result,
// too.
func (s *Sweep) Train(ctx context.Context, p Plan, tell report.Func,
	tellHalved func(step, runs int)) (warnings []string, err error) {
	p.apply(s.base)
	defer StopWith(ctx, s.base)()
	h := train.Halving{Keep: s.Halving, Tell: func(step int, halved []int) error {
		for _, i := range halved {
			s.halved[filepath.Base(s.pending[i].dir)] = step
		}
		data, err := json.Marshal(s.halved)
		if err != nil {
			return err
		}
		tellHalved(step, len(halved))
		return files.WriteBytes(s.halvedPath(), data)
	}}
	if s.Halving > 0 {
		h.At = rungs(s.MostSteps(), s.Halving, s.Rungs, s.Runs[0].job.EvalEvery)
	}
	_, errs := train.RunTogether(ctx, s.base, s.jobs(tell), h)
	warnings = append(warnings, s.stuck...)
	for i, err := range errs {
		if errors.Is(err, train.ErrDiverged) {
			warnings = append(warnings, fmt.Sprintf("%s: %v", s.pending[i].Name(), err))
			errs[i] = nil
		}
	}
	if ctx.Err() != nil {
		return warnings, failure.Hint(context.Cause(ctx), "the same command continues the sweep")
	}
	return warnings, errors.Join(errs...)
}

// rungs returns, ascending, the steps after which runs are halved: steps/keepⁿ … steps/keep, each
// rounded up to an evaluation.
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

// finish saves a run's result and prompt.
func (r *SweepRun) finish(result *train.Result) error {
	r.Loss, r.Steps, r.BestStep = report.Number(result.Loss), result.Steps, result.BestStep
	r.Stop, r.Accuracy = result.StopReason, meanAccuracy(result.Valid)
	r.run.keep(result)
	if err := r.run.Prompt.Save(r.Prompt); err != nil {
		return err
	}
	kept := r.run.result(MethodPrompt, r.dir, r.Prompt, result)
	kept.Settings = r.Settings
	return kept.write(r.dir)
}

// meanAccuracy returns the mean over the validation sets that have an accuracy; nil if none has.
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

// Name returns the run's settings in short.
func (r *SweepRun) Name() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(r.Settings)) {
		parts = append(parts, shortKey(key)+" "+r.Settings[key])
	}
	return strings.Join(parts, ", ")
}

// shortKey returns a key without its section.
func shortKey(key string) string { return key[strings.IndexByte(key, '.')+1:] }
