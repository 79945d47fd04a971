package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/report"
	"ptune/internal/run"
)

type validateOptions struct {
	set         []string
	printConfig bool
	computeOptions
}

func newValidate(s streams) *cobra.Command {
	var o validateOptions
	cmd := &cobra.Command{
		Use:   "validate task.yaml",
		Short: "Find everything that would stop a run",
		Long: `Check a task file's keys and values, its model and files, every row of the data, and whether the run
fits into memory. All mistakes of the task file are printed at once, with their places; if it has none,
those of the model and of all rows. Nothing is written and nothing is trained.`,
		Example: "  ptune validate configs/sentiment.yaml\n" +
			"  ptune validate configs/sentiment.yaml --print-config --set train.steps=20",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(_ context.Context, args []string) error {
			return validateTask(args[0], o, s)
		}),
	}
	f := cmd.Flags()
	setFlag(f, &o.set)
	f.BoolVar(&o.printConfig, "print-config", false,
		"print every key with its value and where it is set")
	o.computeOptions.flags(cmd)
	return cmd
}

func validateTask(path string, o validateOptions, s streams) error {
	task, err := config.Load(path, o.set)
	if err != nil {
		return failure.Usage(config.Pointed(err, path))
	}
	s.warnAll(task.Warnings())
	b, err := openBase(task.Model, o.computeOptions)
	if err != nil {
		err = errors.Join(fmt.Errorf("%s: %w", task.Place("model"), err), run.CheckRows(task))
	} else {
		defer b.Close()
		err = validateRun(task, b, s)
	}
	if err != nil {
		return failure.Usage(config.Pointed(err, path))
	}
	if !o.printConfig {
		_, err = fmt.Fprintf(s.out, "%s is good\n", path)
		return err
	}
	var t report.Table
	values := task.Values()
	for _, key := range config.Keys() {
		if v, ok := values[key]; ok {
			from := "default"
			if task.Set(key) {
				from = task.Place(key)
			}
			t.Rows = append(t.Rows, []string{key, fmt.Sprintf("%q", v), from})
		}
	}
	return t.Text(s.out)
}

// validateRun goes as far as a run can without writing or computing anything.
func validateRun(task *config.Task, b *base.Base, s streams) error {
	r, err := run.Open(task, b, version)
	if err != nil {
		return err
	}
	if err := b.CheckWeights(); err != nil {
		return err
	}
	plan, err := r.Plan(true)
	if err != nil {
		return err
	}
	s.warnAll(append(r.Rows.Notes(), r.Unusual()...))
	return plan.Text(s.err)
}
