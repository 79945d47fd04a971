package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/report"
	"ptune/internal/run"
)

type classifyFlags struct {
	prompt    string
	model     string
	output    string
	maxTokens int
	taskFlags
	scores string
	computeOptions
}

func newClassify(s streams) *cobra.Command {
	var o classifyFlags
	cmd := &cobra.Command{
		Use:   "classify --prompt x.st [file]",
		Short: "Predict the labels of rows",
		Long: `Predict the labels of rows that have none. Templates, labels and the base model come from the prompt's
file. Each label is scored as eval scores it. The same rows are printed with four values added:
predicted, probability, runner_up (the second likeliest label) and runner_up_probability. A row that
has a field of such a name is an error. A row's gold label, if it has one, is not read.

Rows come from a file (.jsonl, .json, .csv, .tsv or .parquet, also packed as .gz or .zst, or a .txt of
one text a line), or from standard input. They are written as they were read: a table with four columns
more, JSON with four fields more; rows of Parquet become lines of JSON. Output is UTF-8. A line of plain
text, for a template of one field, becomes the four values and the text, separated by tabs; a blank line
stays one.

Standard input is JSON if it begins with { or with a list of objects, a table if its first line names the
fields of the template, and else plain text. Lines of JSON, of text and of a table in UTF-8 are answered as
they come; anything else is read to its end first.

All mistakes in a file are listed before the first row is answered. On standard input the rows before a
mistake are answered.

Prompts joined by commas vote, as in eval. --input, --target and --labels are for a prompt of PEFT, which
has none.`,
		Example: `  ptune classify --prompt runs/stars.st internal/demo/data/test.jsonl
  echo "The soup was cold and the waiters were rude." | ptune classify --prompt runs/stars.st`,
		Args: cobra.MaximumNArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error { return classify(ctx, o, args, s) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.prompt, "prompt", "", "prompt file, or an ensemble as a.st,b.st,c.st")
	modelFlag(f, &o.model)
	f.StringVarP(&o.output, "output", "o", "",
		"write to this file, whole or not at all (default: standard output)")
	o.taskFlags.flags(f, ", for a prompt without templates")
	scoresFlag(f, &o.scores)
	f.IntVar(&o.maxTokens, "batch-tokens", tokensAtOnce,
		"tokens of text computed at a time; fewer need less memory")
	o.computeOptions.flags(cmd)
	cobra.CheckErr(cmd.MarkFlagRequired("prompt"))
	return cmd
}

func classify(ctx context.Context, o classifyFlags, args []string, s streams) error {
	o.taskFlags.warn(s)
	if o.maxTokens < 1 {
		return failure.Usage(fmt.Errorf("--batch-tokens is %d, want at least 1", o.maxTokens))
	}
	if o.output == data.Stdin { // which also means standard output
		o.output = ""
	}
	if o.output != "" {
		if err := files.Check(o.output, append(base.Members(o.prompt), args...)...); err != nil {
			return failure.Usage(err)
		}
	}
	path := data.Stdin
	if len(args) > 0 {
		path = args[0]
	}
	if path == data.Stdin && data.Endless(s.in) {
		return failure.Usage(failure.Hint(errors.New("there are no rows to classify"),
			"give a file of rows, or rows on standard input"))
	}
	prompts, b, err := openPrompts(ctx, base.Members(o.prompt), o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := o.setAll(b, prompts); err != nil {
		return failure.Usage(err)
	}
	if err := setScores(o.scores, prompts); err != nil {
		return failure.Usage(err)
	}
	c, err := run.NewClassifier(b, prompts, o.maxTokens)
	if err != nil {
		return failure.Usage(err)
	}
	rows, err := c.Source(ctx, path).Records(s.in, c.Fields)
	if err != nil {
		return failure.Usage(err)
	}
	s.warnAll(rows.Notes)
	var tell report.Func
	if f, ok := s.err.(*os.File); ok && path != data.Stdin && term.IsTerminal(int(f.Fd())) {
		tell = progressOf("auto", s)
	}
	var failed error
	write := func(to io.Writer) error {
		w := bufio.NewWriter(to)
		err := c.Run(ctx, rows, tell, func(some []data.Record, values [][]data.Value) error {
			for i, r := range some {
				if err := rows.Write(w, r, values[i]); err != nil {
					return err
				}
			}
			return w.Flush()
		})
		if err == nil {
			err = rows.End(w)
		}
		return errors.Join(err, w.Flush())
	}
	if o.output == "" {
		return write(s.out)
	}
	err = files.Write(o.output, func(w io.Writer) error {
		failed = write(w)
		return failed
	})
	if failed != nil { // which is not about the file
		err = failed
	}
	return err
}
