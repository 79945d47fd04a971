package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/run"
)

type initOptions struct {
	output                      string
	valid                       string
	demo                        bool
	force                       bool
	texts                       []string
	label                       string
	separator, quotes, encoding string
	set                         []string
	computeOptions
}

func newInit(s streams) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init MODEL DATA",
		Short: "Write a task file for a model and a file of rows",
		Long: `Read a model's directory and a file of rows, and write a commented task file that works: the
fields that are input and target, the labels or conversations, the model's chat template, the format of the
file, what happens to long rows, and how often to evaluate. Change whatever you like in it.

Each thing that is guessed wrongly can be given: the fields with --text and --label, how a table is
written with --separator, --quotes and --encoding, any key of the task file with --set.

--demo needs no arguments: it uses the base and the rows that ptune contains, and writes the rows
into the task file's folder.`,
		Example: "  ptune init ptune:demo internal/demo/data/train.jsonl --output runs/task.yaml --force\n" +
			"  ptune init --demo --output runs/demo/task.yaml --force",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.demo {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: runE(func(ctx context.Context, args []string) error {
			return initTask(ctx, o, args, s)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "task.yaml", "the task file to write")
	f.StringVar(&o.valid, "valid", "",
		"a file of validation rows (default: a tenth of the rows is set aside for validation)")
	f.StringArrayVar(&o.texts, "text", nil,
		"field of the rows for the input (repeatable; default: guessed)")
	f.StringVar(&o.label, "label", "",
		"field of the rows for the target: a label or free text (default: guessed)")
	f.StringVar(&o.separator, "separator", "",
		"character between a table's cells, or tab (default: found out)")
	f.StringVar(&o.quotes, "quotes", "",
		"whether quotation marks may enclose a table's cells: "+
			"on, off or backslash (default: found out)")
	f.StringVar(&o.encoding, "encoding", "",
		"encoding of the file, such as utf-8, windows-1252, shift_jis (default: found out)")
	setFlag(f, &o.set)
	f.BoolVar(&o.demo, "demo", false, "use the embedded base and rows")
	forceFlag(f, &o.force)
	o.computeOptions.flags(cmd)
	return cmd
}

func initTask(ctx context.Context, o initOptions, args []string, s streams) error {
	if err := files.CheckWithFolder(o.output, append(slices.Clone(args), o.valid)...); err != nil {
		return failure.Usage(err)
	}
	if files.Direct(o.output) {
		return failure.Usage(fmt.Errorf("-o %s is a device, a pipe or an open file, want a file: the task file's "+
			"folder is where its prompt will be", o.output))
	}
	if err := refuseExisting(o.output, o.force); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return failure.Usage(fmt.Errorf("make the task file's folder: %w", err))
	}
	model, rows := demo.Name, ""
	if o.demo {
		var err error
		if rows, o.valid, err = demo.WriteData(filepath.Dir(o.output), o.force); err != nil {
			return err
		}
	} else {
		model, rows = args[0], args[1]
		if err := checkSources(model, rows); err != nil {
			return failure.Usage(err)
		}
	}
	g, err := o.guess(ctx, rows)
	if err != nil {
		return err
	}
	b, err := openBase(ctx, model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err = b.Chat(); err != nil && !errors.Is(err, chat.ErrNone) {
		s.tell("%v", err)
	}
	starter := config.Starter{
		File: o.output, Model: model, Rows: rows, Valid: o.valid, Chat: err == nil, Set: o.set, Guess: g,
	}
	found, err := run.WriteStarter(ctx, starter, b)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return failure.Usage(failure.Hint(err, "%s is incomplete; edit it by hand", o.output))
	}
	s.warnAll(g.Notes)
	input := strings.Join(g.Texts, ", ")
	switch {
	case g.Messages != "":
		s.tell("%s: %d rows; %q is a conversation, and the assistant's answers are the targets",
			rows, g.Rows, g.Messages)
	case len(g.Labels) > 0:
		s.tell("%s: %d rows; input %q, target %q with %d labels",
			rows, g.Rows, input, g.Target, len(g.Labels))
	default:
		s.tell("%s: %d rows; input %q, target %q, free text", rows, g.Rows, input, g.Target)
	}
	for _, note := range found.Notes() {
		s.tell("%s", note)
	}
	for _, note := range found.Sampled {
		s.tell("%s", note)
	}
	if found.EvalShare > 0 {
		s.tell("evaluations every %d steps will take about %.0f %% of the time",
			found.EvalEvery, 100*found.EvalShare)
	}
	s.tell("next: ptune validate %s, then ptune train %s", o.output, o.output)
	_, err = fmt.Fprintln(s.out, o.output)
	return err
}

// checkSources returns an error if the arguments of init are no model or no file of rows.
func checkSources(model, rows string) error {
	is := func(path string, want func(os.FileInfo) bool) bool {
		info, err := os.Stat(path)
		return err == nil && want(info)
	}
	isFile := func(info os.FileInfo) bool { return !info.IsDir() }
	isModel := rows == demo.Name || is(rows, os.FileInfo.IsDir)
	switch {
	case is(model, isFile) && isModel:
		return failure.Hint(fmt.Errorf("%s is a file and %s a model, want the model first", model, rows),
			"ptune init %s %s", rows, model)
	case is(model, isFile):
		return failure.Hint(fmt.Errorf("%s is a file, want a model", model),
			"ptune init MODEL DATA: a model is a directory, org/name in the Hugging Face cache, or %s", demo.Name)
	case isModel:
		return failure.Hint(fmt.Errorf("%s is a model or a directory, want a file of rows", rows),
			"give a .jsonl, .json, .csv, .tsv or .parquet file")
	case rows != data.Stdin && !is(rows, func(os.FileInfo) bool { return true }):
		here, _ := os.Getwd()
		return failure.Hint(fmt.Errorf("there is no file %s", rows),
			"give the file of rows after the model; relative paths start at the current directory, %s", here)
	}
	return nil
}

// guess returns what the rows seem to be, with what the flags say.
func (o initOptions) guess(ctx context.Context, rows string) (*data.Guess, error) {
	if rows == data.Stdin {
		return nil, failure.Usage(errors.New("init needs a file of rows: the task file has to name it"))
	}
	task, err := config.Settings(o.set)
	if err != nil {
		return nil, failure.Usage(err)
	}
	from := run.Source(ctx, task, rows)
	from.Separator = cmp.Or(o.separator, from.Separator)
	if from.Separator == "tab" || from.Separator == `\t` {
		from.Separator = "\t"
	}
	from.Quotes, from.Encoding = cmp.Or(o.quotes, from.Quotes), cmp.Or(o.encoding, from.Encoding)
	var errs []error
	for _, m := range from.Mistakes() {
		errs = append(errs, fmt.Errorf("--%s %w", m.Key, m.Err))
	}
	if errs != nil {
		return nil, failure.Usage(errors.Join(errs...))
	}
	known := data.Roles{Texts: o.texts, Target: o.label}
	if o.demo {
		known = data.Roles{Texts: []string{"text"}, Target: "sentiment"}
	}
	g, err := data.Look(from, known)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, failure.Usage(failure.Hint(err, "--text and --label choose fields; "+
			"--separator, --quotes and --encoding say how a table is written"))
	}
	if o.demo {
		g.Labels = []data.Label{
			{Value: "negative", Name: "negative"}, {Value: "positive", Name: "positive"},
		}
	}
	return g, nil
}
