package main

import (
	"context"
	"encoding/json"
	"fmt"
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
		Example: "  ptune inspect runs/sentiment.st\n" +
			"  ptune inspect runs/sentiment.st --json --top 3",
		Args: cobra.ExactArgs(1),
		RunE: runE(func(_ context.Context, args []string) error {
			return inspectPrompt(o, args[0], s)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the base model: a directory, org/name or ptune:demo "+
		"(default: what the prompt's file names)")
	f.IntVar(&o.top, "top", 5, "number of nearest tokens to show for each virtual token")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print as JSON")
	return cmd
}

func inspectPrompt(o inspectFlags, path string, s streams) error {
	p, err := base.LoadPrompt(path)
	if err != nil {
		return err
	}
	x := run.Inspect(p)
	b, err := openBaseOf([]base.Prompt{p}, o.model, o.computeOptions)
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
	return printInspection(x, s)
}

func printInspection(x *run.Inspection, s streams) error {
	var t strings.Builder
	m := x.Meta
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&t, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	line("prompt", "%s: %d virtual tokens of %d values (%d parameters)", x.Path, x.VirtualTokens, x.Width, x.Parameters)
	line("base", "%s (%s, fingerprint %.8s)", m.Base.Name, m.Base.Type, m.Base.Fingerprint)
	if m.Messages != "" {
		line("messages", "%q", m.Messages)
	} else {
		line("input", "%q", m.Input)
		line("target", "%q", m.Target)
	}
	if m.Chat != "" {
		line("chat", "template %.8s", m.Chat)
	}
	if len(m.Labels) > 0 {
		var names []string
		for _, l := range m.Labels {
			if l.Value == l.Name {
				names = append(names, l.Name)
			} else {
				names = append(names, l.Value+" → "+l.Name)
			}
		}
		line("labels", "%s", strings.Join(names, ", "))
	}
	if m.Init.Kind != "" {
		line("init", "%s%s, seed %d", m.Init.Kind, quoted(m.Init.Text+m.Init.File), m.Init.Seed)
	}
	if r := m.Training; r != nil {
		line("training", "%d steps of %d on %d rows (%s), best at %d; %s at %.3g",
			r.Steps, r.BatchSize, r.Rows, r.StopReason, r.BestStep, r.Optimizer, r.LearningRate)
		for _, v := range m.Valid {
			if q, ok := r.Valid[v.Name]; ok {
				if line(v.Name, "loss %.4f", q.Loss); q.Accuracy != nil {
					line("", "accuracy %.4f", *q.Accuracy)
				}
			}
		}
	}
	if x.EmbeddingNorm != nil {
		line("norm", "%.3g; the base's embedding rows have %.3g on average", x.Norm, *x.EmbeddingNorm)
	} else {
		line("norm", "%.3g", x.Norm)
	}
	for i, v := range x.Tokens {
		fmt.Fprintf(&t, "%4d  norm %-8.3g", i+1, v.Norm)
		for _, n := range v.Nearest {
			fmt.Fprintf(&t, "  %q %.2f", n.Token, n.Cosine)
		}
		t.WriteByte('\n')
	}
	_, err := fmt.Fprint(s.out, t.String())
	return err
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(" %q", s)
}
