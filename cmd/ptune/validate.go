package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/report"
	"ptune/internal/run"
)

type validateOptions struct {
	set         []string
	printConfig bool
	json        bool
	computeOptions
}

func newValidate(s streams) *cobra.Command {
	var o validateOptions
	cmd := &cobra.Command{
		Use:   "validate task.yaml",
		Short: "Find everything that would stop a run",
		Long: `Check a task file's keys and values, its model and files, every row of the data, and whether the run
fits into memory. All mistakes of the task file and all missing files are printed at once, with their
places; if there are none, those of the model and of all rows. Nothing is written and nothing is trained.`,
		Example: "  ptune validate configs/sentiment.yaml\n" +
			"  ptune validate configs/sentiment.yaml --print-config --set train.steps=20",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(_ context.Context, args []string) error {
			return validateTask(args[0], o, s)
		}),
	}
	f := cmd.Flags()
	setFlag(f, &o.set)
	f.BoolVar(&o.json, "json", false, "print errors, warnings and the plan as JSON; errors also go to stderr")
	f.BoolVar(&o.printConfig, "print-config", false,
		"print every key with its value and where it is set")
	o.computeOptions.flags(cmd)
	return cmd
}

// validation is the JSON of a check.
type validation struct {
	File     string    `json:"file"`
	Good     bool      `json:"good"`
	Errors   []string  `json:"errors,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Plan     *run.Plan `json:"plan,omitempty"`
}

func validateTask(path string, o validateOptions, s streams) error {
	v := validation{File: path}
	task, err := v.check(path, o)
	s.warnAll(v.Warnings)
	if o.json {
		v.Good = err == nil
		if err != nil {
			v.Errors = strings.Split(err.Error(), "\n")
		}
		if err := json.NewEncoder(s.out).Encode(v); err != nil {
			return err
		}
	}
	if err != nil {
		return failure.Usage(config.Pointed(err, path))
	}
	if o.json {
		return nil
	}
	if err := v.Plan.Text(s.err); err != nil {
		return err
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

// check goes as far as a run can without writing or computing anything, and returns all mistakes.
func (v *validation) check(path string, o validateOptions) (*config.Task, error) {
	task, err := config.Load(path, o.set)
	if err != nil {
		if task != nil {
			err = errors.Join(err, run.CheckFiles(task))
		}
		return nil, err
	}
	v.Warnings = task.Warnings()
	outputs := run.CheckOutputs(task)
	b, err := openBase(task.Model, o.computeOptions)
	if err != nil {
		return nil, errors.Join(outputs, fmt.Errorf("%s: %w", task.Place("model"), err), run.CheckRows(task))
	}
	defer b.Close()
	r, err := run.Open(task, b, version)
	if err = errors.Join(outputs, err); err != nil {
		return nil, err
	}
	if err := b.CheckWeights(); err != nil {
		return nil, err
	}
	plan, err := r.Plan(true)
	if err != nil {
		return nil, err
	}
	v.Plan = &plan
	v.Warnings = append(v.Warnings, append(r.Rows.Notes(), r.Unusual()...)...)
	return task, nil
}
