package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
		Long: `Look at a model's directory and a file of rows and write a commented task file that works: which field is read and which predicted,
labels or conversations, the model's chat template, how the file is written, what is done with long rows. Everything in it can be changed.

With --demo, no arguments are needed: the base and the rows that ptune carries are used, and the rows are written beside the task file.`,
		Example: "  ptune init ptune:demo internal/demo/data/train.jsonl --output runs/task.yaml --force\n  ptune init --demo --output runs/demo/task.yaml --force",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.demo {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: runE(func(_ context.Context, args []string) error { return initTask(o, args, s) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.output, "output", "task.yaml", "the task file to write")
	f.StringVar(&o.valid, "valid", "", "a file of validation rows (without it a tenth of the rows is set aside)")
	f.BoolVar(&o.demo, "demo", false, "use the embedded base and rows")
	f.BoolVar(&o.force, "force", false, "write over files that are there")
	o.computeOptions.flags(cmd)
	return cmd
}

func initTask(o initOptions, args []string, s streams) error {
	if err := os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return failure.Usage(fmt.Errorf("make the task file's folder: %w", err))
	}
	if _, err := os.Stat(o.output); err == nil && !o.force {
		return failure.Usage(failure.Hint(fmt.Errorf("%s is there already", o.output), "give another name with --output, or --force to write over it"))
	}
	model, rows := demo.Name, ""
	if o.demo {
		var err error
		if rows, o.valid, err = demoRows(o); err != nil {
			return err
		}
	} else {
		model, rows = args[0], args[1]
	}
	g, err := data.Look(rows)
	if err != nil {
		return failure.Usage(err)
	}
	if g.Messages == "" && (g.Text == "" || g.Target == "") {
		return failure.Usage(failure.Hint(fmt.Errorf("%s: it is not to be seen what is read and what is predicted; its fields are %s", rows, strings.Join(g.Fields, ", ")),
			"write the task file by hand; ptune help train shows all keys"))
	}
	if o.demo {
		g.Target, g.Labels = "sentiment", []data.Label{{Value: "negative", Name: "negative"}, {Value: "positive", Name: "positive"}}
	}
	b, err := openBase(model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err = b.Chat(); err != nil && !errors.Is(err, chat.ErrNone) {
		s.tell("%v", err)
	}
	text := taskFile(o, model, rows, g, err == nil)
	write := func(text string) (*run.Rows, error) {
		if err := os.WriteFile(o.output, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("write the task file: %w", err)
		}
		task, err := config.Load(o.output, nil)
		if err != nil {
			return nil, err
		}
		return run.LoadRows(task, b)
	}
	found, err := write(text)
	if err != nil && strings.Contains(err.Error(), "data.on_too_long") {
		text = strings.Replace(text, "on_too_long: error ", "on_too_long: cut_input ", 1)
		found, err = write(text)
	}
	if err != nil {
		return failure.Usage(failure.Hint(err, "%s has the task as far as it could be guessed; mend it by hand", o.output))
	}
	switch {
	case g.Messages != "":
		s.tell("%s: %d rows; %q is a conversation, and each answer of the assistant is predicted", rows, g.Rows, g.Messages)
	case len(g.Labels) > 0:
		s.tell("%s: %d rows; %q is read, %q is predicted, one of %d labels", rows, g.Rows, g.Text, g.Target, len(g.Labels))
	default:
		s.tell("%s: %d rows; %q is read, %q is predicted, free text", rows, g.Rows, g.Text, g.Target)
	}
	for _, note := range found.Shortened() {
		s.tell("%s", note)
	}
	s.tell("next: ptune validate %s, then ptune train --config %s", o.output, o.output)
	_, err = fmt.Fprintln(s.out, o.output)
	return err
}

// demoRows writes the demo's rows beside the task file.
func demoRows(o initOptions) (train, valid string, err error) {
	dir := filepath.Dir(o.output)
	files, err := fs.ReadDir(demo.Data(), ".")
	if err != nil {
		return "", "", err
	}
	for _, f := range files {
		rows, err := fs.ReadFile(demo.Data(), f.Name())
		if err != nil {
			return "", "", err
		}
		path := filepath.Join(dir, f.Name())
		if old, err := os.ReadFile(path); err == nil && string(old) != string(rows) && !o.force {
			return "", "", failure.Usage(fmt.Errorf("%s is there already; give --output another folder, or --force", path))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		if err := os.WriteFile(path, rows, 0o644); err != nil {
			return "", "", fmt.Errorf("write the demo's rows: %w", err)
		}
	}
	return filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "valid.jsonl"), nil
}

// taskFile is the task as a person would write it; talks: the model has a chat template.
func taskFile(o initOptions, model, rows string, g *data.Guess, talks bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	stem := func(path string) string { return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) }
	name := "prompt"
	for _, n := range []string{stem(o.output), stem(rows)} {
		if !slices.Contains([]string{"task", "train", "data", "rows"}, n) {
			name = n
			break
		}
	}
	out := filepath.ToSlash(filepath.Join(filepath.Dir(o.output), name))
	line("# ptune train --config %s", o.output)
	line("# ptune eval --prompt %s.st", out)
	line("# All keys and their defaults: ptune help train\n")
	line("model: %s", quoteYAML(model))
	line("\nprompt:\n  tokens: 16                  # virtual tokens; more for hard tasks, up to 100\n  init: text\n  text: %s   # say what to do, as you would ask for it", quoteYAML(instruction(g)))
	line("\ndata:\n  train: %s", quoteYAML(rows))
	if o.valid != "" {
		line("  valid: %s", quoteYAML(o.valid))
	} else {
		line("  valid_fraction: 0.1         # of the rows; decides which prompt is best")
	}
	if g.Columns != nil {
		var cols []string
		for _, c := range g.Columns {
			cols = append(cols, quoteYAML(c))
		}
		line("  columns: [%s]    # the file's first line does not name them", strings.Join(cols, ", "))
	}
	switch {
	case g.Messages != "":
		line("  messages: %s      # in the model's chat template; each answer of the assistant is learned", quoteYAML(g.Messages))
	case talks: // the template says where an answer begins
		line("  input: %s", quoteYAML("{"+g.Text+"}"))
		line("  target: %s", quoteYAML("{"+g.Target+"}"))
		line("  chat: true                  # the user says the input, the assistant the target, in the model's chat template")
	default:
		line("  input: %s", quoteYAML("{"+g.Text+"}\nAnswer:"))
		line("  target: %s", quoteYAML(" {"+g.Target+"}"))
	}
	if len(g.Labels) > 0 {
		line("  labels:                     # value in the file: how the model is to say it")
		for _, l := range g.Labels {
			line("    %s: %s", quoteYAML(l.Value), quoteYAML(l.Name))
		}
	}
	line("  on_too_long: error          # or cut_input, drop")
	line("\ntrain:\n  epochs: 3\n  batch_size: 16\n  eval_every: 50\n  seed: 0")
	line("\noutput:\n  prompt: %s\n  dir: %s", quoteYAML(out+".st"), quoteYAML(out))
	return b.String()
}

// instruction is the text that the prompt begins from.
func instruction(g *data.Guess) string {
	switch n := len(g.Labels); {
	case n == 0:
		return "Answer:"
	case n <= 6:
		var names []string
		for _, l := range g.Labels {
			names = append(names, l.Name)
		}
		slices.Sort(names)
		return "Classify the text as " + strings.Join(names, ", ") + ":"
	}
	return "Classify the text by its " + g.Target + ":"
}

// quoteYAML writes a text so that YAML reads it back as that text.
func quoteYAML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
