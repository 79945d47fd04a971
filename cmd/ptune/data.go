package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/report"
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
		Example: "  ptune data show --config configs/sentiment.yaml --rows 2\n" +
			"  ptune data stats --config configs/sentiment.yaml",
	}
	var o dataOptions
	show := &cobra.Command{
		Use:   "show --config task.yaml",
		Short: "Print rows as token ids, and mark the target",
		Long: `Print the first rows of a task's training file as the model reads them: each token with its id.
Tokens in [brackets] are the target; the loss is computed on them.`,
		Example: "  ptune data show --config configs/sentiment.yaml --rows 2\n" +
			"  ptune data show --config configs/sentiment.yaml --json",
		Args: cobra.NoArgs,
		RunE: runE(func(context.Context, []string) error { return showData(o, s) }),
	}
	show.Flags().IntVar(&o.rows, "rows", 3, "number of rows to print")
	stats := &cobra.Command{
		Use:   "stats --config task.yaml",
		Short: "Count rows, tokens, classes, duplicates, and rows that are cut or dropped",
		Example: "  ptune data stats --config configs/sentiment.yaml\n" +
			"  ptune data stats --config configs/sentiment.yaml --json",
		Args: cobra.NoArgs,
		RunE: runE(func(context.Context, []string) error { return dataStats(o, s) }),
	}
	for _, c := range []*cobra.Command{show, stats} {
		f := c.Flags()
		f.StringVar(&o.config, "config", "", "the task file")
		setFlag(f, &o.set)
		o.computeOptions.flags(c)
		f.BoolVar(&o.json, "json", false, "print as JSON")
		c.MarkFlagRequired("config")
		cmd.AddCommand(c)
	}
	return cmd
}

// open reads the task and its rows.
func (o dataOptions) open() (*config.Task, *base.Base, *run.Rows, error) {
	task, err := config.Load(o.config, o.set)
	if err != nil {
		return nil, nil, nil, failure.Usage(err)
	}
	b, err := openBase(task.Model, o.computeOptions)
	if err != nil {
		return nil, nil, nil, err
	}
	rows, err := run.LoadRows(task, b)
	if err != nil {
		b.Close()
		return nil, nil, nil, failure.Usage(err)
	}
	return task, b, rows, nil
}

// shownToken is a token of a row.
type shownToken struct {
	ID      int32  `json:"id"`
	Token   string `json:"token"`
	Learned bool   `json:"learned"` // part of the target
}

func showData(o dataOptions, s streams) error {
	task, b, rows, err := o.open()
	if err != nil {
		return err
	}
	defer b.Close()
	for _, r := range rows.Train.Rows[:min(o.rows, len(rows.Train.Rows))] {
		var tokens []shownToken
		for i, id := range slices.Concat(r.Input, r.Target) {
			tokens = append(tokens, shownToken{id, b.Tokenizer.Piece(id), i >= len(r.Input)})
		}
		if o.json {
			err := json.NewEncoder(s.out).Encode(map[string]any{
				"file": rows.Train.Path, "line": r.Line,
				"virtual_tokens": task.Prompt.Tokens, "tokens": tokens,
			})
			if err != nil {
				return err
			}
			continue
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%s:%d: %d virtual tokens, then %d of input and %d of target\n",
			rows.Train.Path, r.Line, task.Prompt.Tokens, len(r.Input), len(r.Target))
		for _, t := range tokens {
			format := " %q %d"
			if t.Learned {
				format = " [%q %d]"
			}
			fmt.Fprintf(&text, format, t.Token, t.ID)
		}
		if _, err := fmt.Fprintln(s.out, text.String()); err != nil {
			return err
		}
	}
	return nil
}

func dataStats(o dataOptions, s streams) error {
	_, b, rows, err := o.open()
	if err != nil {
		return err
	}
	defer b.Close()
	all := data.StatsOf(rows.Train, rows.Valid, rows.Format.Labels)
	if o.json {
		return json.NewEncoder(s.out).Encode(map[string]any{"sets": all})
	}
	sets := report.Table{Head: []string{
		"set", "rows", "tokens", "median", "95 %", "longest",
		"equal texts", "also in training", "dropped", "cut",
	}}
	classes := report.Table{Head: []string{"label"}}
	for _, l := range rows.Format.Labels {
		classes.Rows = append(classes.Rows, []string{l.Name})
	}
	for _, x := range all {
		row := []string{x.Set}
		for _, n := range []int{
			x.Rows, x.Tokens, x.Median, x.P95, x.Longest, x.Equal, x.Shared, x.Dropped, x.Cut,
		} {
			row = append(row, fmt.Sprint(n))
		}
		sets.Rows = append(sets.Rows, row)
		classes.Head = append(classes.Head, x.Set)
		for i, l := range rows.Format.Labels {
			classes.Rows[i] = append(classes.Rows[i], fmt.Sprint(x.Classes[l.Name]))
		}
	}
	if err := sets.Text(s.out); err != nil || len(classes.Rows) == 0 {
		return err
	}
	fmt.Fprintln(s.out)
	return classes.Text(s.out)
}
