package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/config"
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
places; if there are none, those of the model and of all rows. It warns if train would refuse to replace
a prompt or the state of an unfinished run. Nothing is written and nothing is trained.`,
		Example: "  ptune validate configs/stars.yaml\n" +
			"  ptune validate configs/stars.yaml --print-config --set train.steps=20",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return validateTask(ctx, args[0], o, s)
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

func validateTask(ctx context.Context, path string, o validateOptions, s streams) error {
	v, err := until(ctx, func() (*run.Validation, error) {
		return run.Validate(ctx, path, o.set, version, func(model string) (*base.Base, error) {
			return openBase(ctx, model, o.computeOptions)
		})
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.warnAll(v.Warnings)
	if o.json {
		if err := json.NewEncoder(s.out).Encode(v); err != nil {
			return err
		}
	}
	if err != nil {
		return config.Pointed(err, path)
	}
	if o.json {
		return nil
	}
	if err := v.Plan.Text(s.err); err != nil {
		return err
	}
	if o.printConfig {
		return v.Config().Text(s.out)
	}
	if path != config.Stdin {
		s.tell("next: ptune train %s", path)
	}
	_, err = fmt.Fprintf(s.out, "%s is good\n", path)
	return err
}
