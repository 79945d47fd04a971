package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ptune/internal/failure"
	"ptune/internal/report"
	"ptune/internal/run"
)

type compareOptions struct {
	set []string
	run.MethodOptions
	only string // train this one method and print its result: set in the child processes
	computeOptions
	json, markdown, quiet bool

	changed []string // the flags given, as arguments for a child process
}

func newCompare(s streams) *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare task.yaml",
		Short: "Compare prompt tuning with LoRA and full fine-tuning on a task",
		Long: `Train the same base on the same rows, batches and steps by prompt tuning, by LoRA and by full
fine-tuning, and print for each: quality on the validation rows (or --data), trained parameters, peak
memory, time of a step, size of the task's file, and the time to load another task's file. Each method
runs in its own process, so that memory is measured separately.

All methods use the task's optimizer and schedule; LoRA and full fine-tuning have their own learning
rates. The LoRA stays in compare/lora in the output folder, in PEFT's format. The fully tuned weights
are measured and removed.`,
		Example: "  ptune compare configs/stars.yaml --set train.steps=20\n" +
			"  ptune compare configs/stars.yaml --set train.steps=20 --methods prompt,lora " +
			"--lora-rank 4 --markdown",
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = runE(func(ctx context.Context, args []string) error {
		if o.only != "" {
			return compareOne(ctx, args[0], o, s)
		}
		o.changed = childFlags(cmd.Flags())
		return compareAll(ctx, args[0], o, s)
	})
	f := cmd.Flags()
	setFlag(f, &o.set)
	f.StringVarP(&o.Output, "output", "o", "",
		"folder for the results, instead of output.dir; they go to its subfolder compare")
	f.StringSliceVar(&o.Methods, "methods", run.Methods(), "methods to compare")
	f.StringVar(&o.Data, "data", "", "rows to measure on (default: the validation rows)")
	f.IntVar(&o.LoRA.Rank, "lora-rank", 8, "rank of the LoRA; higher trains more parameters")
	f.Float64Var(&o.LoRA.Alpha, "lora-alpha", 16,
		"LoRA's alpha: its product is multiplied by alpha/rank")
	f.StringSliceVar(&o.LoRA.Targets, "lora-targets", nil,
		"modules that get a LoRA; all-linear: all of them (default: PEFT's choice for the model)")
	f.Float64Var(&o.LoRARate, "lora-rate", 1e-3, "learning rate of LoRA")
	f.Float64Var(&o.FullRate, "full-rate", 1e-4, "learning rate of full fine-tuning")
	f.StringVar(&o.only, "only", "", "")
	f.MarkHidden("only")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the results as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print the table as Markdown")
	quietFlag(f, &o.quiet)
	return cmd
}

// parentFlags are the flags that only the process that prints the table obeys.
var parentFlags = map[string]bool{"json": true, "markdown": true, "only": true}

// childFlags returns the flags that were given, as arguments for the process of one method.
func childFlags(f *pflag.FlagSet) []string {
	var args []string
	f.Visit(func(f *pflag.Flag) {
		if parentFlags[f.Name] {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			args = append(args, "--"+f.Name+"="+v)
		}
	})
	return args
}

// compareAll runs each method in its own process and prints their results.
func compareAll(ctx context.Context, path string, o compareOptions, s streams) error {
	if o.json && o.markdown {
		return failure.Usage(errors.New("--json and --markdown exclude each other"))
	}
	task, err := run.LoadComparison(path, o.set, o.MethodOptions)
	if err != nil {
		return err
	}
	s.warnAll(task.Warnings())
	var methods []run.MethodResult
	for _, name := range o.Methods {
		if !o.quiet {
			s.tell("%s:", name)
		}
		args := append([]string{"compare", path, "--only=" + name}, o.changed...)
		m, err := compareInChild(ctx, name, args, s)
		if err != nil {
			return err
		}
		methods = append(methods, m)
	}
	if o.json {
		return json.NewEncoder(s.out).Encode(map[string]any{"methods": methods})
	}
	table := run.MethodTable(methods)
	if o.markdown {
		return table.Markdown(s.out)
	}
	return table.Text(s.out)
}

// compareInChild runs this program with args, which train one method, and returns the result.
func compareInChild(ctx context.Context, name string, args []string,
	s streams) (m run.MethodResult, err error) {
	m.Method = name
	exe, err := os.Executable()
	if err != nil {
		return m, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, s.err
	err = cmd.Run()
	var exit *exec.ExitError
	switch errors.As(err, &exit); {
	case ctx.Err() != nil && exit != nil && exit.ExitCode() >= exitInterrupted-int(syscall.SIGINT):
		return m, printedError{context.Cause(ctx)}
	case ctx.Err() != nil:
		return m, context.Cause(ctx)
	case exit != nil && exit.ExitCode() == exitDiverged:
		m.Failed = "diverged"
		return m, nil
	case exit != nil && exit.ExitCode() == exitUsage:
		// the child has printed why
		return m, failure.Usage(fmt.Errorf("%s could not be compared", name))
	case err != nil:
		return m, fmt.Errorf("compare %s: %w", name, err)
	}
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		return m, fmt.Errorf("%s: read its result: %w", name, err)
	}
	return m, nil
}

// compareOne trains and measures one method and prints its result as JSON.
func compareOne(ctx context.Context, path string, o compareOptions, s streams) error {
	task, err := run.LoadComparison(path, o.set, o.MethodOptions)
	if err != nil {
		return err
	}
	b, err := openBase(ctx, task.Model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	tell := func(report.Event) {}
	if !o.quiet {
		tell = report.Text(s.err, 2*time.Second)
	}
	result, err := run.Compare(ctx, task, b, o.only, o.MethodOptions, version, tell)
	if err != nil {
		return err
	}
	return json.NewEncoder(s.out).Encode(result)
}
