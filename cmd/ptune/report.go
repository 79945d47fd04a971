package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/run"
)

type reportOptions struct {
	output string
	worst  int
	computeOptions
}

func newReport(s streams) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report RUN...",
		Short: "Write an HTML page about a run, or several side by side",
		Long: `Write one HTML file about the run in a folder that train wrote, or about several runs side by side:
curves of loss, accuracy, gradient norm and prompt norm, a confusion matrix and the worst rows of the
validation set, the nearest tokens of each virtual token, the task file. The page needs no network and
no scripts. Without the base, it leaves out what needs the base, with a note.`,
		Example: "  ptune report runs/sentiment\n" +
			"  ptune report runs/sentiment runs/topic --output runs/both.html",
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return writeReport(ctx, args, o, s)
		}),
	}
	cmd.Flags().StringVar(&o.output, "output", "",
		"the file to write (default: report.html in the first run's folder)")
	cmd.Flags().IntVar(&o.worst, "worst", 10, "number of worst rows to show")
	o.computeOptions.flags(cmd)
	return cmd
}

func writeReport(ctx context.Context, dirs []string, o reportOptions, s streams) error {
	page := report.Page{Title: "ptune: " + strings.Join(dirs, ", "), Version: version}
	for _, dir := range dirs {
		r, err := reportRun(ctx, dir, o)
		if err != nil {
			return err
		}
		page.Runs = append(page.Runs, r)
	}
	var html bytes.Buffer
	if err := report.HTML(&html, page); err != nil {
		return err
	}
	path := cmp.Or(o.output, filepath.Join(dirs[0], "report.html"))
	if err := files.WriteBytes(path, html.Bytes()); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out, path)
	return err
}

// reportRun returns what the page shows of the run in a folder.
func reportRun(ctx context.Context, dir string, o reportOptions) (r report.Run, err error) {
	f, err := os.Open(run.EventsPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return r, failure.Usage(failure.Hint(fmt.Errorf("read the run: %w", err),
			"a run's folder is its task's output.dir (default: its prompt's folder)"))
	}
	if err != nil {
		return r, fmt.Errorf("read the run: %w", err)
	}
	defer f.Close()
	r.Name = filepath.ToSlash(filepath.Clean(dir))
	if r.Log, err = report.Read(f); err != nil {
		return r, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if len(r.Log.Steps) == 0 {
		return r, failure.Usage(fmt.Errorf("%s has no step yet", f.Name()))
	}
	r.Facts = r.Log.Facts()
	for key, value := range r.Log.Start.Task {
		r.Task = append(r.Task, report.Fact{Name: key, Value: value})
	}
	slices.SortFunc(r.Task, func(a, b report.Fact) int { return strings.Compare(a.Name, b.Name) })
	if r.Log.Start.Prompt == "" {
		r.Note = "The run does not say where its prompt is, so only curves are shown."
		return r, nil
	}
	if err := promptFacts(ctx, &r, dir, o); err != nil {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		r.Note = "Predictions and tokens are left out: " + err.Error() + "."
	}
	return r, nil
}

// promptFacts measures the prompt on its first validation set and finds its nearest tokens.
func promptFacts(ctx context.Context, r *report.Run, dir string, o reportOptions) error {
	p, err := base.LoadPrompt(base.PathAt(run.EventsPath(dir), r.Log.Start.Prompt))
	if err != nil {
		return err
	}
	b, err := openBaseOf([]base.Prompt{p}, "", o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	x := inspection{}
	for i := range p.Rows {
		x.Tokens = append(x.Tokens, virtual{Norm: prompt.Norm(p.Row(i))})
	}
	x.nearest(p.Prompt, b, 5)
	for _, v := range x.Tokens {
		t := report.Token{Norm: v.Norm}
		for _, n := range v.Nearest {
			t.Nearest = append(t.Nearest, fmt.Sprintf("%q %.2f", n.Token, n.Cosine))
		}
		r.Tokens = append(r.Tokens, t)
	}
	if len(p.Meta.Valid) == 0 {
		return nil
	}
	jobs, err := evalJobs(evalFlags{}, b, [][]base.Prompt{{p}})
	if err != nil {
		return err
	}
	j := jobs[0]
	res, err := eval.Run(ctx, b, j.values, run.EvalRows(j.set), run.EvalOptions(j.choices, j.eos, j.rows, 4096))
	if err != nil {
		return err
	}
	r.Set = j.set.Path
	truth, order := make([]int, len(j.set.Rows)), make([]int, len(j.set.Rows))
	for i, row := range j.set.Rows {
		truth[i], order[i] = row.Label, i
	}
	for _, c := range j.choices {
		r.Labels = append(r.Labels, c.Name)
	}
	if len(j.choices) > 0 {
		r.Confusion = eval.Confusion(truth, res.Predicted, len(j.choices))
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(res.Losses[b], res.Losses[a]) })
	for _, i := range order[:min(o.worst, len(order))] {
		m := report.Mistake{Text: shortText(j.set.Rows[i].Text), Loss: res.Losses[i]}
		if len(j.choices) > 0 {
			m.Label, m.Predicted = j.choices[truth[i]].Name, j.choices[res.Predicted[i]].Name
		}
		r.Worst = append(r.Worst, m)
	}
	return nil
}

// shortText returns the beginning of a text, short enough for a table.
func shortText(s string) string {
	if r := []rune(s); len(r) > 400 {
		return string(r[:400]) + "…"
	}
	return s
}

// machine returns CPU, threads and kernels of a run.
func machine(b *base.Base) string {
	return fmt.Sprintf("%s, %d threads, %s kernels",
		cmp.Or(process.CPUName(), runtime.GOARCH), b.Pool.Threads(), b.Pool.Kernels())
}
