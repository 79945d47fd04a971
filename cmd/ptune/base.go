package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/kernels"
	"ptune/internal/process"
)

// computeOptions are the flags of every command that computes.
type computeOptions struct {
	threads int
	compute string
	noMmap  bool
	trusted bool // for tests: no child process tries the tokenizer
}

func (o *computeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.threads, "threads", 0, "threads that compute (0: one for each CPU)")
	f.BoolVar(&o.noMmap, "no-mmap", false,
		"read the model's files into memory instead of mapping them, if they may change while in use")
	f.StringVar(&o.compute, "compute", "f32",
		"number format of the inputs of matrix products: f32, or bf16 on CPUs with bf16 instructions: "+
			"training is up to 2 times as fast, and SmolLM2-135M lost 5 points of accuracy "+
			"(docs/quality.md)")
}

// options returns what the flags and PTUNE_KERNELS say about opening a base.
func (o computeOptions) options() (base.Options, error) {
	b := base.Options{
		Threads: o.threads, Kernels: os.Getenv("PTUNE_KERNELS"), Copy: o.noMmap, Trusted: o.trusted,
	}
	switch {
	case o.threads < 0:
		return b, failure.Usage(fmt.Errorf("--threads is %d, want 0 or more", o.threads))
	case o.compute == "bf16":
		b.Compute = kernels.BF16
	case o.compute != "f32":
		return b, failure.Usage(fmt.Errorf("--compute is %q, want f32 or bf16", o.compute))
	}
	return b, nil
}

// explain names the flag or variable that asked for kernels this CPU does not have.
func (o computeOptions) explain(err error) error {
	switch {
	case !errors.Is(err, base.ErrKernels):
		return err
	case os.Getenv("PTUNE_KERNELS") != "":
		return fmt.Errorf("PTUNE_KERNELS: %w", err)
	}
	return failure.Hint(fmt.Errorf("--compute bf16: %w", err),
		"bf16 needs a CPU with AVX-512 BF16 or AMX; --compute f32 works on every CPU")
}

// openBase opens the base at path.
func openBase(ctx context.Context, path string, o computeOptions) (*base.Base, error) {
	return o.open(ctx, func(options base.Options) (*base.Base, error) { return base.Open(path, options) })
}

// openPrompts opens prompts and the base that all of them were made for.
func openPrompts(ctx context.Context, paths []string, model string, o computeOptions) (
	[]base.Prompt, *base.Base, error) {
	prompts, err := base.LoadPrompts(paths)
	if err != nil {
		return nil, nil, err
	}
	b, err := openBaseOf(ctx, prompts, model, o)
	return prompts, b, err
}

// openBaseOf opens the base that prompts were made for: model, or the one that the first of them names.
func openBaseOf(ctx context.Context, prompts []base.Prompt, model string, o computeOptions) (
	*base.Base, error) {
	return o.open(ctx, func(options base.Options) (*base.Base, error) {
		return base.OpenFor(prompts, model, options)
	})
}

// open opens a base with the options of the flags, and sets up the process for computing.
func (o computeOptions) open(ctx context.Context, open func(base.Options) (*base.Base, error)) (
	*base.Base, error) {
	options, err := o.options()
	if err != nil {
		return nil, err
	}
	b, err := until(ctx, func() (*base.Base, error) { return open(options) })
	if err != nil {
		return nil, o.explain(err)
	}
	process.SpareProcessor(b.Pool.Threads())
	process.SmallHeap()
	return b, nil
}

// newLoadTokenizer is the command of the child process that base starts for an unknown tokenizer.
func newLoadTokenizer() *cobra.Command {
	return &cobra.Command{
		Use: base.ProbeCommand + " DIR", Short: "Load a tokenizer and print nothing", Hidden: true,
		Args: cobra.ExactArgs(1), Example: "  ptune load-tokenizer internal/demo/base",
		RunE: runE(func(_ context.Context, args []string) error { return base.Probe(args[0]) }),
	}
}
