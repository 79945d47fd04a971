package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/report"
	"ptune/internal/run"
)

type collectOptions struct {
	gates     eval.GateOptions
	report    string
	json, csv bool
}

func newCollect(s streams) *cobra.Command {
	var o collectOptions
	cmd := &cobra.Command{
		Use:   "collect DIR...",
		Short: "Make one table of the results of many trainings",
		Long: `Read each result.json in the folders and their subfolders, which train, sweep and compare write when a
training has ended, and print a table: the prompt, the settings that differ, the validation metrics and
the seconds of all attempts. Metrics are means over a prompt's validation sets. Gates are checked on
every set, and the prompts that miss one are named:

  ptune collect runs --fail-under accuracy=0.9 --fail-over loss=0.5`,
		Example: "  ptune collect runs\n" +
			"  ptune collect runs --csv\n" +
			"  ptune collect runs --report runs/all.html",
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(_ context.Context, args []string) error { return collectResults(args, o, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.gates.FailUnder, "fail-under", nil,
		"exit with 3 if a metric of any prompt is lower, as in accuracy=0.9; one of accuracy, macro_f1, "+
			"exact_match (repeatable)")
	f.StringArrayVar(&o.gates.FailOver, "fail-over", nil,
		"exit with 3 if a metric of any prompt is higher, as in loss=0.5; one of loss, perplexity (repeatable)")
	f.StringVar(&o.report, "report", "", "also write the table as an HTML page to this file")
	f.BoolVar(&o.json, "json", false, "print the results as JSON, one object for each prompt")
	f.BoolVar(&o.csv, "csv", false, "print the table as CSV")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	return cmd
}

func collectResults(dirs []string, o collectOptions, s streams) error {
	gates, err := o.gates.Gates()
	if err != nil {
		return failure.Usage(err)
	}
	for _, g := range gates {
		if g.Metric == "mcc" || g.Metric == eval.MetricCalibration {
			return failure.Usage(fmt.Errorf("%s: training does not measure %s; ptune eval does", g.Name(), g.Metric))
		}
	}
	if o.report != "" {
		if err := files.Check(o.report); err != nil {
			return failure.Usage(err)
		}
	}
	results, err := run.Collect(dirs)
	if err != nil {
		return err
	}
	table := run.CollectedTable(results)
	if err := printCollected(s, o, results, table); err != nil {
		return err
	}
	if o.report != "" {
		var html bytes.Buffer
		page := report.Page{Title: fmt.Sprintf("ptune: %d trainings", len(results)), Version: version, Table: table}
		if err := report.HTML(&html, page); err != nil {
			return err
		}
		if err := files.WriteBytes(o.report, html.Bytes()); err != nil {
			return err
		}
	}
	return run.CheckCollected(gates, results)
}

// printCollected prints results on stdout.
func printCollected(s streams, o collectOptions, results []run.Collected, table report.Table) error {
	switch {
	case o.json:
		lines := json.NewEncoder(s.out)
		for _, r := range results {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case o.csv:
		w := csv.NewWriter(s.out)
		return errors.Join(w.Write(table.Head), w.WriteAll(table.Rows))
	}
	return table.Text(s.out)
}
