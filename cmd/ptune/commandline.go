package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/run"
)

// suggested makes a hint of the names that cobra suggests in further lines of an error.
func suggested(err error) error {
	if err == nil {
		return nil
	}
	message, names, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if !ok {
		return err
	}
	return failure.Hint(errors.New(message), "did you mean %s?",
		strings.Join(strings.Fields(names), " or "))
}

// help prints the help of a command. Unlike cobra's own, it refuses an unknown one.
func help(c *cobra.Command, args []string) error {
	about, rest, err := c.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("unknown command %q for %q", rest[0], about.CommandPath())
	}
	if err != nil {
		return err
	}
	return about.Help()
}

// flagError adds a hint to the error of an unknown flag that is meant to be a key of the task file.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && c.Flags().Lookup("set") != nil {
		if way := config.OtherWay(unknown.GetSpecifiedName()); way != "" {
			return failure.Hint(err, "%s", way)
		}
		if key := config.KeyNamed(unknown.GetSpecifiedName()); key != "" {
			return failure.Hint(err, "it is a key of the task file: --set %s=VALUE", key)
		}
	}
	return err
}

// refuseTwice makes flags that hold one value refuse a second one.
func refuseTwice(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if _, list := f.Value.(pflag.SliceValue); !list && f.NoOptDefVal == "" {
			f.Value = &onceValue{Value: f.Value}
		}
	})
	for _, sub := range c.Commands() {
		refuseTwice(sub)
	}
}

// onceValue is a flag's value that can be set once.
type onceValue struct {
	pflag.Value
	set bool
}

func (v *onceValue) Set(text string) error {
	if v.set {
		return fmt.Errorf("it is %q already, and takes one value", v.String())
	}
	v.set = true
	return v.Value.Set(text)
}

// setFlag adds --set, which overrides keys of the task file.
func setFlag(f *pflag.FlagSet, set *[]string) {
	f.StringArrayVar(set, "set", nil,
		"set a key of the task file, as in train.steps=100 (repeatable)")
}

// modelFlag adds --model, the base that prompts are used with.
func modelFlag(f *pflag.FlagSet, model *string) {
	f.StringVar(model, "model", "",
		"the base model: a directory, a .gguf file, org/name or ptune:demo (default: what the prompt's file names)")
}

// scoresFlag adds --label-scores, which replaces data.label_scores of a prompt's file.
func scoresFlag(f *pflag.FlagSet, scores *string) {
	f.StringVar(scores, "label-scores", "",
		"sum or mean: a label's score is the sum of the log-likelihoods of its tokens, or their mean "+
			"(default: what the prompt's file says, or sum)")
}

// setScores makes prompts score their labels as --label-scores says.
func setScores(scores string, prompts []base.Prompt) error {
	switch scores {
	case "":
		return nil
	case data.ScoreSum, data.ScoreMean:
	default:
		return fmt.Errorf("--label-scores is %q, want sum or mean", scores)
	}
	for _, p := range prompts {
		if p.Meta.LabelScores = ""; scores == data.ScoreMean {
			p.Meta.LabelScores = scores
		}
	}
	return nil
}

// quietFlag adds --quiet, with which a command shows no progress.
func quietFlag(f *pflag.FlagSet, quiet *bool) {
	f.BoolVar(quiet, "quiet", false, "print only warnings and errors on stderr")
}

// forceFlag adds --force, without which a command replaces no task file, prompt or adapter.
func forceFlag(f *pflag.FlagSet, force *bool) {
	f.BoolVar(force, "force", false, "overwrite what exists")
}

// refuseExisting returns an error if the file to write exists, unless it is to be replaced.
func refuseExisting(path string, force bool) error {
	if force {
		return nil
	}
	return run.CheckAbsent(path)
}

// taskFile makes a command take its task file as the argument, or with --config.
func taskFile(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "", "the task file, instead of the argument (-: standard input)")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		given := args
		if *path != "" {
			given = append([]string{*path}, args...)
		}
		switch len(given) {
		case 0:
			return failure.Hint(errors.New("the task file is missing"), "%s task.yaml", cmd.CommandPath())
		case 1:
			*path = given[0]
			return nil
		}
		return fmt.Errorf("want one task file, not %s", strings.Join(given, " and "))
	}
}

// until returns what f returns, or the cause of the end of ctx as soon as that comes. Then f still runs
// while the program ends, so it must use nothing that its caller closes.
func until[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// loadTask reads a task file, which may be standard input, and applies settings.
func loadTask(ctx context.Context, path string, set []string) (*config.Task, error) {
	task, err := until(ctx, func() (*config.Task, error) { return config.Load(path, set) })
	return task, failure.Usage(err)
}

// runE makes a command's RunE of its work, whose errors are not about the command line.
func runE(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := work(cmd.Context(), args); err != nil {
			return workError{err}
		}
		return nil
	}
}
