package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ptune/internal/config"
	"ptune/internal/process"
	"ptune/internal/report"
	"ptune/internal/run"
)

type sweepOptions struct {
	set    []string
	output string
	computeOptions
	json, quiet bool
}

func newSweep(s streams) *cobra.Command {
	var o sweepOptions
	cmd := &cobra.Command{
		Use:   "sweep sweep.yaml",
		Short: "Train prompts over a grid of settings, together on one base",
		Long: `Train a prompt for every combination of settings and rank them by validation loss. All runs train
together on one loaded base: their rows share the passes over its weights. Each prompt is the one
that its run alone would give. Start an interrupted sweep again to continue it. The sweep file has these
keys:

` + config.SweepReference + `
The output folder gets table.md, results.json, sweep.svg, best.st and, in runs/, a folder for each run.`,
		Example: "  ptune sweep configs/sweep.yaml\n" +
			"  ptune sweep configs/sweep.yaml --set train.steps=10 --json",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return sweepTask(ctx, args[0], o, s)
		}),
	}
	f := cmd.Flags()
	setFlag(f, &o.set)
	f.StringVarP(&o.output, "output", "o", "", "folder for the results, instead of the file's output")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the results as JSON")
	quietFlag(f, &o.quiet)
	return cmd
}

// sweepTask is the whole sweep.
func sweepTask(ctx context.Context, path string, o sweepOptions, s streams) error {
	begin := time.Now()
	sweep, err := until(ctx, func() (*run.Sweep, error) { return run.LoadSweep(path, o.output, o.set) })
	if err != nil {
		return err
	}
	s.warnAll(sweep.Warnings())
	if err := sweep.MakeFolder(); err != nil {
		return err
	}
	unlock, err := run.Lock(sweep.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := openBase(ctx, sweep.Model(), o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := sweep.Open(ctx, b, version); err != nil {
		return err
	}
	tell := s.tell
	if o.quiet {
		tell = func(string, ...any) {}
	}
	tell("%s: %d runs on %s, up to %d steps each", path, len(sweep.Runs), b.Name, sweep.MostSteps())
	for _, note := range sweep.Notes() {
		tell("%s", note)
	}
	pending, warnings, err := sweep.Resume()
	s.warnAll(warnings)
	if err != nil {
		return err
	}
	if pending > 0 {
		plan, err := sweep.Plan()
		if err != nil {
			return err
		}
		b.CloseTokenizer()
		process.FreeMemory()
		progress := report.SweepText(s.err, pending, 2*time.Second)
		if o.quiet {
			progress = func(report.Event) {}
		}
		warnings, err := sweep.Train(ctx, plan, progress, func(step, runs int) {
			tell("step %d: halving ends %d runs", step, runs)
		})
		s.warnAll(warnings)
		if err != nil {
			return err
		}
	}
	results, err := sweep.Results(time.Since(begin))
	if err != nil {
		return err
	}
	if o.json {
		_, err := s.out.Write(results.JSON)
		return err
	}
	if err := results.Table.Text(s.out); err != nil {
		return err
	}
	tell("the best prompt (%s) is %s; table.md, results.json and sweep.svg are in the same folder",
		results.Best.Name(), results.BestPath)
	return nil
}
