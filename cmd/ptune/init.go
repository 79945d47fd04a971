package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	output string
	valid  string
	demo   bool
	force  bool
	computeOptions
}

func newInit(s streams) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init MODEL DATA",
		Short: "Write a task file for a model and a file of rows",
		Long: `Read a model's directory and a file of rows, and write a commented task file that works: the fields
that are input and target, the labels or conversations, the model's chat template, the format of the
file, and what happens to long rows. Change whatever you like in it.

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
		RunE: runE(func(_ context.Context, args []string) error {
			return initTask(o, args, s)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "task.yaml", "the task file to write")
	f.StringVar(&o.valid, "valid", "",
		"a file of validation rows (default: a tenth of the rows is set aside for validation)")
	f.BoolVar(&o.demo, "demo", false, "use the embedded base and rows")
	forceFlag(f, &o.force)
	o.computeOptions.flags(cmd)
	return cmd
}

func initTask(o initOptions, args []string, s streams) error {
	if err := files.CheckWithFolder(o.output); err != nil {
		return failure.Usage(err)
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
	}
	g, err := data.Look(data.Source{Path: rows}, data.Roles{})
	if err != nil {
		return failure.Usage(err)
	}
	if false {
		err := fmt.Errorf("%s: cannot tell which field is the input and which the target; "+
			"the fields are %s", rows, strings.Join(g.Fields, ", "))
		return failure.Usage(failure.Hint(err,
			"write the task file by hand; ptune help train shows all keys"))
	}
	if o.demo {
		g.Target = "sentiment"
		g.Labels = []data.Label{
			{Value: "negative", Name: "negative"}, {Value: "positive", Name: "positive"},
		}
	}
	b, err := openBase(model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err = b.Chat(); err != nil && !errors.Is(err, chat.ErrNone) {
		s.tell("%v", err)
	}
	starter := config.Starter{
		File: o.output, Model: model, Rows: rows, Valid: o.valid, Chat: err == nil, Guess: g,
	}
	found, err := run.WriteStarter(starter, b)
	if err != nil {
		return failure.Usage(failure.Hint(err, "%s is incomplete; edit it by hand", o.output))
	}
	switch {
	case g.Messages != "":
		s.tell("%s: %d rows; %q is a conversation, and the assistant's answers are the targets",
			rows, g.Rows, g.Messages)
	case len(g.Labels) > 0:
		s.tell("%s: %d rows; input %q, target %q with %d labels",
			rows, g.Rows, strings.Join(g.Texts, ", "), g.Target, len(g.Labels))
	default:
		s.tell("%s: %d rows; input %q, target %q, free text", rows, g.Rows, strings.Join(g.Texts, ", "), g.Target)
	}
	for _, note := range found.Notes() {
		s.tell("%s", note)
	}
	s.tell("next: ptune validate %s, then ptune train %s", o.output, o.output)
	_, err = fmt.Fprintln(s.out, o.output)
	return err
}
