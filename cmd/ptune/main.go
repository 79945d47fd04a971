// Command ptune trains, evaluates and runs soft prompts for frozen causal language models on a CPU.
//
// Results go to stdout, progress and errors to stderr. An error is one line that begins with
// "ptune: error:", in lower case and without a period. If there is something to do next, a line that
// begins with "ptune: hint:" follows.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"ptune/internal/config"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/process"
	"ptune/internal/report"
	"ptune/internal/train"
)

// version is set when a release is linked.
var version = "dev"

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // the command line, the task file or the data is wrong
	exitGate        = 3 // a gate of eval was missed
	exitDiverged    = 4
	exitInterrupted = 130 // SIGINT; SIGTERM is 143, SIGHUP 129
)

// streams is what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// warn prints a warning on stderr.
func (s streams) warn(format string, args ...any) {
	fmt.Fprintf(s.err, "ptune: warning: "+format+"\n", args...)
}

// warnAll prints each text as a warning.
func (s streams) warnAll(texts []string) {
	for _, t := range texts {
		s.warn("%s", t)
	}
}

// tell prints a line of progress on stderr.
func (s streams) tell(format string, args ...any) {
	fmt.Fprintf(s.err, format+"\n", args...)
}

func main() {
	process.OneMallocArena()
	process.ExitOnBusError("ptune: error: a model file became shorter while it was in use\n" +
		"ptune: hint: restore the file; train --resume continues a run; " +
		"--no-mmap reads files into memory first\n")
	os.Exit(execute(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// checkedWriter keeps the first error of a writer.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

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

// progressOf returns a function that shows a run's progress on stderr, as a bar or as lines.
func progressOf(kind string, s streams) report.Func {
	const every = 2 * time.Second
	columns := 80
	if f, ok := s.err.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			columns = n
		}
		if kind == "auto" && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
			kind = "bar"
		}
	}
	if kind == "bar" {
		return report.Bar(s.err, columns, every/20, process.CurrentMemory)
	}
	return report.Text(s.err, every)
}

// execute runs the program on streams and returns the exit code.
func execute(args []string, s streams) int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		stop(interrupt{(<-signals).(syscall.Signal)})
		os.Exit(128 + int((<-signals).(syscall.Signal))) // a second signal exits at once
	}()
	out := &checkedWriter{Writer: s.out}
	s.out = out
	root := newRoot(s)
	root.SetArgs(args)
	err := suggested(root.ExecuteContext(ctx))
	if out.err != nil && !errors.As(err, new(workError)) { // cobra wrote help or a completion script
		err = workError{out.err}
	}
	if err == nil {
		return exitDone
	}
	code := exitCode(ctx, err)
	if errors.Is(err, syscall.EPIPE) || errors.As(err, new(printedError)) {
		return code // the reader has closed the pipe, so it does not want the error
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		if strings.HasPrefix(line, "  | ") { // points at the place of the line before
			fmt.Fprintln(s.err, line)
		} else {
			fmt.Fprintf(s.err, "ptune: error: %s\n", line)
		}
	}
	if hint := failure.HintOf(err); hint != "" {
		fmt.Fprintf(s.err, "ptune: hint: %s\n", hint)
	}
	return code
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "ptune",
		Short: "Train, evaluate and run soft prompts for frozen language models on a CPU",
		Long: `ptune trains soft prompts (prompt tuning, Lester et al. 2021) for frozen causal language models
on a CPU. It reads a Hugging Face model directory, learns a few virtual tokens and writes them to a
file of tens of kilobytes.

Exit codes: 0 done; 1 failed; 2 the command line, task file or data is wrong; 3 a gate of eval was
missed; 4 training diverged; 130, 143 or 129 interrupted by SIGINT, SIGTERM or SIGHUP.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.SetVersionTemplate("ptune {{.Version}}\n")
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.AddCommand(newInit(s), newValidate(s), newSchema(s), newData(s), newTrain(s), newEval(s),
		newGenerate(s), newInspect(s), newReport(s), newSweep(s), newCompare(s), newPull(s),
		newExport(s), newImport(s), newVersion(s), newMan(), newLoadTokenizer())
	root.AddCommand(newTopics()...)
	complete(root)
	root.SetFlagErrorFunc(flagError)
	refuseTwice(root)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.RunE = help
		case "completion": // else an unknown shell prints help and exits with 0
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
	return root
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

func newSchema(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of task files", Args: cobra.NoArgs,
		Long: "Print the JSON Schema of task files. Editors use it to complete and check keys: " +
			"in VS Code, set yaml.schemas of the YAML extension.",
		Example: "  ptune schema > runs/ptune.schema.json",
		RunE: runE(func(context.Context, []string) error {
			schema, err := config.Schema()
			if err == nil {
				_, err = fmt.Fprintf(s.out, "%s\n", schema)
			}
			return err
		}),
	}
}

func newVersion(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  ptune version", Args: cobra.NoArgs,
		RunE: runE(func(context.Context, []string) error {
			_, err := fmt.Fprintln(s.out, "ptune", version)
			return err
		}),
	}
}

// workError is the error of a command's work. Any other error comes from cobra and is about the
// command line.
type workError struct{ error }

func (w workError) Unwrap() error { return w.error }

// printedError is an error that a child process has printed.
type printedError struct{ error }

// interrupt is the signal that ended a run.
type interrupt struct{ signal syscall.Signal }

func (i interrupt) Error() string {
	names := map[syscall.Signal]string{
		syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP",
	}
	return "interrupted by " + names[i.signal]
}

// exitCode returns the exit code of an error.
func exitCode(ctx context.Context, err error) int {
	var i interrupt
	switch {
	case errors.As(context.Cause(ctx), &i):
		return exitInterrupted - int(syscall.SIGINT) + int(i.signal)
	case failure.IsUsage(err) || !errors.As(err, new(workError)):
		return exitUsage
	case errors.Is(err, eval.ErrGate):
		return exitGate
	case errors.Is(err, train.ErrDiverged):
		return exitDiverged
	}
	return exitFailed
}

// setFlag adds --set, which overrides keys of the task file.
func setFlag(f *pflag.FlagSet, set *[]string) {
	f.StringArrayVar(set, "set", nil,
		"set a key of the task file, as in train.steps=100 (repeatable)")
}

// forceFlag adds --force, without which a command replaces no task file, prompt or adapter.
func forceFlag(f *pflag.FlagSet, force *bool) {
	f.BoolVar(force, "force", false, "overwrite what exists")
}

// refuseExisting returns an error if the file to write exists. A device is no loss.
func refuseExisting(path string, force bool) error {
	info, err := os.Stat(path)
	if force || err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return failure.Usage(failure.Hint(fmt.Errorf("%s exists already", path),
		"give another name with -o, or --force to overwrite it"))
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

// runE makes a command's RunE of its work, whose errors are not about the command line.
func runE(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := work(cmd.Context(), args); err != nil {
			return workError{err}
		}
		return nil
	}
}
