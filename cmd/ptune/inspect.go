package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/run"
)

type inspectFlags struct {
	model string
	top   int
	computeOptions
	json bool
}

func newInspect(s streams) *cobra.Command {
	var o inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect x.st",
		Short: "Show a soft prompt's metadata, norms and nearest tokens",
		Long: `Show a soft prompt's metadata, the norm of each virtual token and of the base's embedding rows, and the
tokens whose embeddings have the largest cosine with each virtual token. Without the base, show what
the file alone says.`,
		Example: "  ptune inspect runs/stars.st\n" +
			"  ptune inspect runs/stars.st --json --top 3",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return inspectPrompt(ctx, o, args[0], s)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the base model: a directory, a .gguf file, org/name or ptune:demo "+
		"(default: what the prompt's file names)")
	f.IntVar(&o.top, "top", 5, "number of nearest tokens to show for each virtual token")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print as JSON")
	return cmd
}

func inspectPrompt(ctx context.Context, o inspectFlags, path string, s streams) error {
	p, err := base.LoadPrompt(path)
	if err != nil {
		return err
	}
	x := run.Inspect(p)
	b, err := openBaseOf(ctx, []base.Prompt{p}, o.model, o.computeOptions)
	switch {
	case err == nil:
		defer b.Close()
		x.AddNearest(b, o.top)
	case o.model != "":
		return err
	default:
		s.warn("no nearest tokens: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if o.json {
		return json.NewEncoder(s.out).Encode(x)
	}
	return x.Text(s.out)
}
