package run

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/report"
)

// Validation is what a check of a task found, as JSON too.
type Validation struct {
	File     string   `json:"file"`
	Good     bool     `json:"good"`
	Errors   []string `json:"errors,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Plan     *Plan    `json:"plan,omitempty"`

	task *config.Task
}

// Validate goes as far as a run of the task file can without writing or computing anything. open opens the
// base model. The error has all mistakes that were found, one a line, and is marked as the run's would be.
func Validate(ctx context.Context, path string, set []string, version string,
	open func(model string) (*base.Base, error)) (*Validation, error) {
	v := &Validation{File: path}
	err := v.check(ctx, set, version, open)
	if v.Good = err == nil; err != nil {
		v.Errors = strings.Split(err.Error(), "\n")
	}
	return v, err
}

func (v *Validation) check(ctx context.Context, set []string, version string,
	open func(model string) (*base.Base, error)) error {
	task, err := config.Load(v.File, set)
	if err != nil {
		if task != nil {
			err = errors.Join(err, CheckFiles(task))
		}
		return failure.Usage(err)
	}
	v.task, v.Warnings = task, task.Warnings()
	outputs := CheckOutputs(task)
	if err := CheckNew(task); err != nil && outputs == nil {
		v.Warnings = append(v.Warnings, fmt.Sprintf("train will refuse this: %v; %s", err, failure.HintOf(err)))
	}
	b, err := open(task.Model)
	if err != nil {
		return errors.Join(outputs, fmt.Errorf("%s: %w", task.Place("model"), err), failure.Usage(CheckRows(ctx, task)))
	}
	defer b.Close()
	r, err := Open(ctx, task, b, version)
	if err = errors.Join(outputs, err); err != nil {
		return err
	}
	if err := b.CheckWeights(); err != nil {
		return err
	}
	plan, err := r.Plan(true)
	if err != nil {
		return err
	}
	v.Plan = &plan
	v.Warnings = append(v.Warnings, append(r.Rows.Notes(), r.Unusual()...)...)
	return nil
}

// Config returns a table of all keys of a good task with their values and where they are set.
func (v *Validation) Config() report.Table {
	var t report.Table
	values := v.task.Values()
	for _, key := range config.Keys() {
		if value, ok := values[key]; ok {
			from := "default"
			if v.task.Set(key) {
				from = v.task.Place(key)
			}
			t.Rows = append(t.Rows, []string{key, fmt.Sprintf("%q", value), from})
		}
	}
	return t
}
