package main

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/report"
	"ptune/internal/run"
)

type reportOptions struct {
	output string
	worst  int
	quiet  bool
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
		Example: "  ptune report runs/stars\n" +
			"  ptune report runs/stars runs/things --output runs/both.html",
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			return writeReport(ctx, args, o, s)
		}),
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "",
		"the file to write (default: report.html in the first run's folder)")
	cmd.Flags().IntVar(&o.worst, "worst", 10, "number of worst rows to show")
	o.computeOptions.flags(cmd)
	quietFlag(cmd.Flags(), &o.quiet)
	return cmd
}

func writeReport(ctx context.Context, dirs []string, o reportOptions, s streams) error {
	path := cmp.Or(o.output, filepath.Join(dirs[0], "report.html"))
	info, err := os.Stat(filepath.Dir(path))
	if o.output != "" || err == nil && info.IsDir() { // else there is no run
		if err := files.Check(path); err != nil {
			return failure.Usage(err)
		}
	}
	page := report.Page{Title: "ptune: " + strings.Join(dirs, ", "), Version: version}
	open := func(p base.Prompt) (*base.Base, error) {
		return openBaseOf(ctx, []base.Prompt{p}, "", o.computeOptions)
	}
	for _, dir := range dirs {
		r, err := run.Report(ctx, dir, o.worst, open, evaluationProgress(o.quiet, s))
		if err != nil {
			return err
		}
		page.Runs = append(page.Runs, r)
	}
	var html bytes.Buffer
	if err := report.HTML(&html, page); err != nil {
		return err
	}
	if err := files.WriteBytes(path, html.Bytes()); err != nil {
		return err
	}
	return s.wrote(path)
}
