package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/chat"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/run"
)

type validateOptions struct {
	set         []string
	printConfig bool
	computeOptions
}

func newValidate(s streams) *cobra.Command {
	var o validateOptions
	cmd := &cobra.Command{
		Use:   "validate task.yaml",
		Short: "Find everything that would stop a run",
		Long: `Check a task file's keys and values, that its model and files are there, every row of the data, and whether the run fits into memory. All
that is wrong is said at once, with its place. Nothing is written and nothing is computed.`,
		Example: "  ptune validate configs/sentiment.yaml\n  ptune validate configs/sentiment.yaml --print-config --set train.steps=20",
		Args:    cobra.ExactArgs(1),
		RunE:    runE(func(_ context.Context, args []string) error { return validateTask(args[0], o, s) }),
	}
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "set a key of the task file (repeatable)")
	cmd.Flags().BoolVar(&o.printConfig, "print-config", false, "print every key with its value and where that comes from")
	o.computeOptions.flags(cmd)
	return cmd
}

func validateTask(path string, o validateOptions, s streams) error {
	task, err := config.Load(path, o.set)
	if err != nil {
		return failure.Usage(pointed(err, path))
	}
	var errs []error
	b, err := openBase(task.Model, o.computeOptions)
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", task.Place("model"), err), lookAtRows(task))
	} else {
		defer b.Close()
		errs = append(errs, validateRun(task, b, s))
	}
	if err := errors.Join(errs...); err != nil {
		return failure.Usage(pointed(err, path))
	}
	if !o.printConfig {
		_, err = fmt.Fprintf(s.out, "%s is good\n", path)
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	values := task.Values()
	for _, key := range config.Keys() {
		if v, ok := values[key]; ok {
			from := "default"
			if task.Set(key) {
				from = task.Place(key)
			}
			fmt.Fprintf(w, "%s\t%q\t%s\n", key, v, from)
		}
	}
	return w.Flush()
}

// validateRun goes as far as a run can without writing or computing anything.
func validateRun(task *config.Task, b *base.Base, s streams) error {
	r, err := run.Open(task, b, version)
	if err != nil {
		return err
	}
	plan, err := r.Plan(true)
	if err != nil {
		return err
	}
	s.warnAll(append(r.Rows.Shortened(), r.Unusual()...))
	return printPlan(streams{out: s.err}, plan, false)
}

// lookAtRows checks the rows where there is no tokenizer to make tokens of them.
func lookAtRows(task *config.Task) error {
	f, err := task.Data.Format()
	if err != nil {
		return err
	}
	if task.Data.Messages != "" {
		if _, err := f.UseChat(letters{}, letters{}, []int32{-1}); err != nil {
			return err
		}
	}
	var errs []error
	files := []string{task.Data.Train}
	for _, v := range task.Data.Valid {
		files = append(files, v.Path)
	}
	for _, file := range files {
		_, err := data.Load("", run.Source(task, file), f, letters{}, data.Options{MaxTokens: noLimit})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// letters stands for a tokenizer, with a token for each byte, and for a chat template.
type letters struct{}

func (letters) Render(conversation []chat.Message, _ bool) (string, error) {
	var text strings.Builder
	for _, m := range conversation {
		text.WriteString(m.Content)
	}
	return text.String(), nil
}

func (letters) EncodeInput(text string) ([]int32, error) { return letters{}.Encode(text) }

func (letters) Encode(text string) ([]int32, error) { return make([]int32, len(text)), nil }

// pointed shows below each mistake of a task file the line it is about, with a mark under its place.
func pointed(err error, path string) error {
	text, readErr := os.ReadFile(path)
	if readErr != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	place := regexp.MustCompile(`^` + regexp.QuoteMeta(path) + `:(\d+):(\d+): `)
	var errs []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if m := place.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			col, _ := strconv.Atoi(m[2])
			if shown := []rune(lines[min(n, len(lines))-1]); col <= len(shown)+1 && len(shown) < 200 {
				blank := slices.Clone(shown[:col-1])
				for i, r := range blank {
					if r != '\t' {
						blank[i] = ' '
					}
				}
				line += fmt.Sprintf("\n  | %s\n  | %s^", string(shown), string(blank))
			}
		}
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}
