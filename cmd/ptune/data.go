package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/run"
)

type dataOptions struct {
	config string
	set    []string
	rows   int
	computeOptions
	json bool
}

func newData(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Show a task's rows as the model reads them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: "  ptune data show configs/stars.yaml --rows 2\n" +
			"  ptune data stats configs/stars.yaml",
	}
	var o dataOptions
	show := &cobra.Command{
		Use:   "show task.yaml",
		Short: "Print rows as token ids, and mark the target",
		Long: `Print the first rows of a task's training file as the model reads them: each token with its id.
Tokens in [brackets] are the target; the loss is computed on them.`,
		Example: "  ptune data show configs/stars.yaml --rows 2\n" +
			"  ptune data show configs/stars.yaml --json",
		RunE: runE(func(ctx context.Context, _ []string) error { return showData(ctx, o, s) }),
	}
	show.Flags().IntVar(&o.rows, "rows", 3, "number of rows to print")
	stats := &cobra.Command{
		Use:   "stats task.yaml",
		Short: "Count rows, tokens, classes, duplicates, and rows that are cut or dropped",
		Example: "  ptune data stats configs/stars.yaml\n" +
			"  ptune data stats configs/stars.yaml --json",
		RunE: runE(func(ctx context.Context, _ []string) error { return dataStats(ctx, o, s) }),
	}
	for _, c := range []*cobra.Command{show, stats} {
		f := c.Flags()
		taskFile(c, &o.config)
		setFlag(f, &o.set)
		o.computeOptions.flags(c)
		f.BoolVar(&o.json, "json", false, "print as JSON")
		cmd.AddCommand(c)
	}
	return cmd
}

// open reads the task and its rows.
func (o dataOptions) open(ctx context.Context, s streams) (*config.Task, *base.Base, *run.Rows, error) {
	task, err := loadTask(ctx, o.config, o.set)
	if err != nil {
		return nil, nil, nil, err
	}
	s.warnAll(task.Warnings())
	b, err := openBase(ctx, task.Model, o.computeOptions)
	if err != nil {
		return nil, nil, nil, err
	}
	rows, err := run.LoadRows(ctx, task, b)
	if err != nil {
		b.Close()
		return nil, nil, nil, failure.Usage(err)
	}
	return task, b, rows, nil
}

func showData(ctx context.Context, o dataOptions, s streams) error {
	if o.rows < 0 {
		return failure.Usage(fmt.Errorf("--rows %d: want a number of rows, at least 0", o.rows))
	}
	task, b, rows, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, r := range rows.Show(o.rows, b, task.Prompt.Tokens) {
		if o.json {
			err = json.NewEncoder(s.out).Encode(r)
		} else {
			_, err = fmt.Fprintln(s.out, r.Text())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func dataStats(ctx context.Context, o dataOptions, s streams) error {
	_, b, rows, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	defer b.Close()
	all := rows.Stats()
	if o.json {
		return json.NewEncoder(s.out).Encode(map[string]any{"sets": all})
	}
	sets, labels := rows.StatsTables(all)
	if err := sets.Text(s.out); err != nil || len(labels.Rows) == 0 {
		return err
	}
	fmt.Fprintln(s.out)
	return labels.Text(s.out)
}
