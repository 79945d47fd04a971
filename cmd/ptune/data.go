package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
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
		Short: "Show a task's rows as the model will see them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: "  ptune data show --config configs/sentiment.yaml --rows 2\n" +
			"  ptune data stats --config configs/sentiment.yaml",
	}
	var o dataOptions
	show := &cobra.Command{
		Use: "show --config task.yaml", Short: "Print rows with their token ids, and which of them are learned", Args: cobra.NoArgs,
		Long: `Print the first rows of a task's training file as the model will see them: each token with its id; those in [brackets] are the target, on
which the loss is.`,
		Example: "  ptune data show --config configs/sentiment.yaml --rows 2\n  ptune data show --config configs/sentiment.yaml --json",
		RunE:    runE(func(context.Context, []string) error { return showData(o, s) }),
	}
	show.Flags().IntVar(&o.rows, "rows", 3, "how many rows")
	stats := &cobra.Command{
		Use: "stats --config task.yaml", Short: "Count tokens, classes, equal texts and what would be cut", Args: cobra.NoArgs,
		Example: "  ptune data stats --config configs/sentiment.yaml\n  ptune data stats --config configs/sentiment.yaml --json",
		RunE:    runE(func(context.Context, []string) error { return dataStats(o, s) }),
	}
	for _, c := range []*cobra.Command{show, stats} {
		c.Flags().StringVar(&o.config, "config", "", "the task file")
		c.Flags().StringArrayVar(&o.set, "set", nil, "set a key of the task file (repeatable)")
		o.computeOptions.flags(c)
		c.Flags().BoolVar(&o.json, "json", false, "print as JSON")
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
	Learned bool   `json:"learned"`
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
			if err := json.NewEncoder(s.out).Encode(map[string]any{"file": rows.Train.Path, "line": r.Line, "virtual_tokens": task.Prompt.Tokens, "tokens": tokens}); err != nil {
				return err
			}
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s:%d: %d virtual tokens, then %d of input and %d of target\n", rows.Train.Path, r.Line, task.Prompt.Tokens, len(r.Input), len(r.Target))
		for _, t := range tokens {
			if t.Learned {
				fmt.Fprintf(&b, " [%q %d]", t.Token, t.ID)
			} else {
				fmt.Fprintf(&b, " %q %d", t.Token, t.ID)
			}
		}
		if _, err := fmt.Fprintln(s.out, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// setStats is what a set is like.
type setStats struct {
	Set     string         `json:"set"`
	File    string         `json:"file"`
	Rows    int            `json:"rows"`
	Tokens  int            `json:"tokens"`
	Median  int            `json:"median_tokens"`
	P95     int            `json:"p95_tokens"`
	Longest int            `json:"longest_tokens"`
	Equal   int            `json:"equal_texts"`       // rows whose text another row before them has
	Shared  int            `json:"texts_of_training"` // validation rows whose text is among the training rows
	Dropped int            `json:"dropped"`
	Cut     int            `json:"cut"`
	Classes map[string]int `json:"classes,omitempty"`
}

func dataStats(o dataOptions, s streams) error {
	_, b, rows, err := o.open()
	if err != nil {
		return err
	}
	defer b.Close()
	trained := map[string]bool{}
	for _, r := range rows.Train.Rows {
		trained[r.Text] = true
	}
	var all []setStats
	for i, set := range append([]*data.Set{rows.Train}, rows.Valid...) {
		x := setStats{Set: set.Name, File: set.Path, Rows: len(set.Rows), Dropped: set.Dropped, Cut: set.Cut}
		var lengths []int
		seen := map[string]bool{}
		for _, r := range set.Rows {
			n := len(r.Input) + len(r.Target)
			lengths, x.Tokens = append(lengths, n), x.Tokens+n
			if seen[r.Text] {
				x.Equal++
			}
			if seen[r.Text] = true; i > 0 && trained[r.Text] {
				x.Shared++
			}
			if r.Label >= 0 {
				if x.Classes == nil {
					x.Classes = map[string]int{}
				}
				x.Classes[rows.Format.Labels[r.Label].Name]++
			}
		}
		slices.Sort(lengths)
		x.Median, x.P95, x.Longest = lengths[len(lengths)/2], lengths[len(lengths)*95/100], lengths[len(lengths)-1]
		all = append(all, x)
	}
	if o.json {
		return json.NewEncoder(s.out).Encode(map[string]any{"sets": all})
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "set\trows\ttokens\tmedian\t95 %\tlongest\tequal texts\talso in training\tdropped\tcut")
	for _, x := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", x.Set, x.Rows, x.Tokens, x.Median, x.P95, x.Longest, x.Equal, x.Shared, x.Dropped, x.Cut)
	}
	if all[0].Classes != nil {
		fmt.Fprint(w, "\nlabel")
		for _, x := range all {
			fmt.Fprintf(w, "\t%s", x.Set)
		}
		fmt.Fprintln(w)
		for _, l := range rows.Format.Labels {
			fmt.Fprint(w, l.Name)
			for _, x := range all {
				fmt.Fprintf(w, "\t%d", x.Classes[l.Name])
			}
			fmt.Fprintln(w)
		}
	}
	return w.Flush()
}
