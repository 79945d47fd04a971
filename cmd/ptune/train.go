package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/run"
	"ptune/internal/train"
)

type trainOptions struct {
	config string
	set    []string
	output string
	computeOptions
	resume   bool
	force    bool
	progress string
	dryRun   bool
	json     bool
	quiet    bool
	many     tasksOptions
}

func newTrain(s streams) *cobra.Command {
	var o trainOptions
	cmd := &cobra.Command{
		Use:   "train task.yaml",
		Short: "Train a soft prompt",
		Long: `Train the soft prompt that a task file describes and write it to output.prompt. The prompt's file
has all that using it needs: templates, labels, the base's path and fingerprint. --set overrides any
key of the task file. Relative paths in it start at the current directory. These are the keys with
their defaults; keys marked ● have none:

` + config.Reference,
		Example: "  ptune train configs/stars.yaml\n" +
			"  ptune train configs/stars.yaml --dry-run\n" +
			"  ptune train configs/stars.yaml --set train.steps=20 -o runs/short.st",
		RunE: runE(func(ctx context.Context, _ []string) error {
			if o.many.list != "" {
				return trainTasks(ctx, o, s)
			}
			return trainTask(ctx, o, s)
		}),
	}
	f := cmd.Flags()
	taskFile(cmd, &o.config)
	setFlag(f, &o.set)
	f.StringVarP(&o.output, "output", "o", "", "the prompt file to write, instead of output.prompt")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.resume, "resume", false,
		"continue an interrupted run from the state in output.dir, with the same result; a finished run "+
			"stays as it is")
	forceFlag(f, &o.force)
	f.BoolVar(&o.dryRun, "dry-run", false,
		"check everything, measure one step and the evaluation of a few rows, print the work, the memory and "+
			"the time that the run takes, and keep nothing")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.StringVar(&o.progress, "progress", "auto",
		"progress on stderr: bar, plain (a line every two seconds), or auto: a bar on a terminal")
	quietFlag(f, &o.quiet)
	tasksFlags(cmd, &o.many)
	return cmd
}

// trainTask is the whole run.
func trainTask(ctx context.Context, o trainOptions, s streams) error {
	begin := time.Now()
	if !slices.Contains([]string{"auto", "bar", "plain"}, o.progress) {
		return failure.Usage(fmt.Errorf("--progress is %q, want auto, bar or plain", o.progress))
	}
	if o.output != "" {
		o.set = append(o.set, "output.prompt="+o.output)
	}
	task, err := loadTask(ctx, o.config, o.set)
	if err != nil {
		return err
	}
	s.warnAll(task.Warnings())
	if err := run.MakeFolders(task); err != nil {
		return err
	}
	if !o.dryRun {
		unlock, err := run.Lock(task.Output.Dir)
		if err != nil {
			return err
		}
		defer unlock()
		if !o.force && !o.resume {
			if err := run.CheckNew(task); err != nil {
				return err
			}
		}
	}
	b, err := openBase(ctx, task.Model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	r, err := run.Open(ctx, task, b, version) // finds every mistake of rows and templates
	if err != nil {
		return err
	}
	if err := b.CheckWeights(); err != nil {
		return err
	}
	plan, err := r.Plan(o.dryRun)
	if err != nil {
		return err
	}
	if o.dryRun {
		if err := r.Estimate(ctx, &plan); err != nil {
			return err
		}
		if o.json {
			return json.NewEncoder(s.out).Encode(plan)
		}
		return plan.Text(s.out)
	}
	var from *train.State // nil: from the beginning
	if o.resume {
		var warnings []string
		from, warnings, err = r.Resume()
		s.warnAll(warnings)
		if err != nil {
			return err
		}
		if from == nil && !o.force {
			if err := run.CheckNew(task); err != nil {
				return err
			}
		}
	}
	if from != nil {
		if end, training := r.Finished(from); end != nil {
			s.warn("the run in %s is finished; nothing was changed", task.Output.Dir)
			return printTrained(s, o.json, task.Output.Prompt, training, end)
		}
	}
	b.CloseTokenizer()
	process.FreeMemory()
	tell, closeEvents, err := r.Record(from)
	if err != nil {
		return err
	}
	defer closeEvents()
	if !o.quiet {
		tell = report.All(tell, progressOf(o.progress, s))
	}
	notes := r.Rows.Notes()
	if !o.quiet {
		notes = append(notes, r.Unusual()...)
	}
	s.warnAll(notes)
	tell(r.Start())
	for _, note := range r.Notes() {
		tell(note)
	}

	result, runErr := r.Train(ctx, plan, from, tell)

	path := task.Output.Prompt
	if runErr != nil { // an unfinished prompt must not replace a finished one
		path = filepath.Join(task.Output.Dir, result.StopReason+".st")
	}
	if _, err := os.Stat(path); err == nil && runErr == nil && !o.quiet {
		s.tell("the earlier %s is replaced", path)
	}
	if err := r.Save(path, result); err != nil {
		return errors.Join(runErr, err)
	}
	end := report.End{
		Steps: result.Steps, BestStep: result.BestStep, StopReason: result.StopReason,
		Seconds: time.Since(begin).Seconds(), PeakMemoryBytes: process.PeakMemory(),
	}
	tell(end)
	eventsErr := closeEvents()
	if runErr != nil {
		hint := ""
		if result.StopReason == train.StopInterrupted {
			hint = "; --resume continues the run"
		}
		return failure.Hint(runErr, "the best prompt so far (step %d) is in %s%s", result.BestStep,
			path, hint)
	}
	if eventsErr != nil {
		return eventsErr
	}
	if !o.quiet {
		s.tell("next: %s", nextOf(path, task))
	}
	return printTrained(s, o.json, path, r.Prompt.Meta.Training, &end)
}

// nextOf returns the commands that follow a training.
func nextOf(path string, task *config.Task) string {
	next := "ptune eval --prompt " + path
	if len(task.Data.Valid) == 0 {
		next += " --data FILE"
	}
	if len(task.Data.Labels) > 0 {
		return next + ", then ptune classify --prompt " + path + " FILE"
	}
	return next + ", then ptune generate --prompt " + path + " TEXT"
}

// printTrained prints the result on stdout.
func printTrained(s streams, asJSON bool, path string, t *prompt.Training, end *report.End) error {
	if !asJSON {
		_, err := fmt.Fprintln(s.out, path)
		return err
	}
	return json.NewEncoder(s.out).Encode(struct {
		Prompt          string                    `json:"prompt"`
		Steps           int                       `json:"steps"`
		BestStep        int                       `json:"best_step"`
		StopReason      string                    `json:"stop_reason"`
		Valid           map[string]prompt.Quality `json:"valid"`
		Seconds         float64                   `json:"seconds"`
		PeakMemoryBytes int64                     `json:"peak_memory_bytes"`
	}{path, t.Steps, t.BestStep, t.StopReason, t.Valid, end.Seconds, end.PeakMemoryBytes})
}
