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
	"golang.org/x/term"

	"ptune/internal/config"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/files"
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
	exitTaskWrong   = 65  // train --tasks: the same again would fail again
	exitTryAgain    = 75  // train --tasks: the same again continues
	exitInterrupted = 130 // SIGINT; SIGTERM is 143, SIGHUP 129, SIGUSR1 138
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

// markLine begins a line of an error that points at the place of the line before.
const markLine = "  | "

// printError prints an error and its hint on stderr.
func (s streams) printError(err error) {
	for _, line := range strings.Split(err.Error(), "\n") {
		if strings.HasPrefix(line, markLine) {
			fmt.Fprintln(s.err, line)
		} else {
			fmt.Fprintf(s.err, "ptune: error: %s\n", line)
		}
	}
	if hint := failure.HintOf(err); hint != "" {
		fmt.Fprintf(s.err, "ptune: hint: %s\n", hint)
	}
}

// tell prints a line of progress on stderr.
func (s streams) tell(format string, args ...any) {
	fmt.Fprintf(s.err, format+"\n", args...)
}

// wrote prints the path of a file that was written, unless its content may have gone to stdout itself.
func (s streams) wrote(path string) error {
	if files.Direct(path) {
		return nil
	}
	_, err := fmt.Fprintln(s.out, path)
	return err
}

func main() {
	process.ExitOnCrash()
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

// evaluationProgress returns a function that shows an evaluation's progress, or nil if it is to be quiet.
func evaluationProgress(quiet bool, s streams) report.Func {
	if quiet {
		return nil
	}
	return progressOf("auto", s)
}

// duplicateSignal is how soon after the first signal another one is the same request.
const duplicateSignal = 300 * time.Millisecond

// execute runs the program on streams and returns the exit code.
func execute(args []string, s streams) int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	go func() {
		first := (<-signals).(syscall.Signal)
		stop(interrupt{first})
		// A supervisor may signal the process and also its group. That is one request.
		for from := time.Now(); ; {
			if again := (<-signals).(syscall.Signal); time.Since(from) > duplicateSignal {
				os.Exit(128 + int(again)) // a second signal exits at once
			}
		}
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
	if !errors.Is(err, syscall.EPIPE) && !errors.As(err, new(printedError)) {
		s.printError(err) // else the reader has closed the pipe, so it does not want the error
	}
	return exitCode(ctx, err)
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "ptune",
		Short: "Train, evaluate and run soft prompts for frozen language models on a CPU",
		Long: `ptune trains soft prompts (prompt tuning, Lester et al. 2021) for frozen causal language models
on a CPU. It reads a Hugging Face model directory, learns a few virtual tokens and writes them to a
file of tens of kilobytes.

Exit codes: 0 done; 1 failed; 2 the command line, task file or data is wrong; 3 a gate of eval was
missed; 4 training diverged; 65 and 75 of train --tasks: a task is wrong, try again; 70 a fault of
ptune itself; 130, 143, 129 or 138 interrupted by SIGINT, SIGTERM, SIGHUP or SIGUSR1.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.SetVersionTemplate("ptune {{.Version}}\n")
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.AddCommand(newInit(s), newValidate(s), newSchema(s), newData(s), newTrain(s), newEval(s),
		newGenerate(s), newServe(s), newClassify(s), newInspect(s), newReport(s), newCollect(s), newSweep(s), newCompare(s), newPull(s),
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
		syscall.SIGUSR1: "SIGUSR1",
	}
	return "interrupted by " + names[i.signal]
}

// exitCode returns the exit code of an error.
func exitCode(ctx context.Context, err error) int {
	var i interrupt
	var tasks tasksFailed
	switch {
	case errors.As(err, &tasks) && tasks.again > 0:
		return exitTryAgain
	case errors.As(err, &tasks):
		return exitTaskWrong
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
