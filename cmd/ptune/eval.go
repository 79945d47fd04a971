package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/run"
)

type evalFlags struct {
	prompts []string
	model   string
	data    string
	taskFlags
	scores      string
	gates       eval.GateOptions
	samples     string
	junit       string
	exact       bool
	noBaseline  bool
	calibration bool
	maxTokens   int
	computeOptions
	json, quiet bool
}

func newEval(s streams) *cobra.Command {
	var o evalFlags
	cmd := &cobra.Command{
		Use:   "eval --prompt x.st",
		Short: "Measure a soft prompt on rows, and the base without it",
		Long: `Measure loss and perplexity of the targets of rows. If the task has labels, also measure accuracy
and macro-F1: the predicted label is the one with the highest likelihood. Templates, labels and the
base model come from the prompt's file. The rows come from --data or, without it, from the
validation files used in training. The base without the prompt is measured as well.

Prompts joined by commas are an ensemble: in one pass over the base, each prompt votes for the label
it finds likeliest, and the label with most votes is predicted (Lester et al. 2021, section 6). The
loss is the mean of the prompts' losses.

With --model and without --prompt, the base alone is measured. --input and --target then give the
templates, as for a prompt of PEFT, which has none.`,
		Example: `  ptune eval --prompt runs/stars.st --data internal/demo/data/test.jsonl
  ptune eval --prompt runs/stars.st --json --fail-under accuracy=0.9`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error { return evalPrompts(ctx, o, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil,
		"prompt file, or an ensemble as a.st,b.st,c.st (repeatable: all are measured on "+
			"one loaded base)")
	modelFlag(f, &o.model)
	f.StringVar(&o.data, "data", "",
		"file of rows, in the format of the training rows (.jsonl, .json, .csv, .tsv, .parquet, also "+
			"packed as .gz or .zst; - is standard input)")
	o.taskFlags.flags(f, ", for the base alone or a prompt without templates")
	scoresFlag(f, &o.scores)
	f.StringArrayVar(&o.gates.FailUnder, "fail-under", nil,
		"exit with 3 if a metric is lower, as in accuracy=0.9; one of "+
			strings.Join(eval.Metrics(false), ", ")+" (repeatable)")
	f.StringArrayVar(&o.gates.FailOver, "fail-over", nil,
		"exit with 3 if a metric is higher, as in loss=0.5; one of "+
			strings.Join(eval.Metrics(true), ", ")+" (repeatable)")
	f.StringVar(&o.gates.Compare, "compare", "", "JSON file of an earlier evaluation, for --max-drop")
	f.StringArrayVar(&o.gates.MaxDrop, "max-drop", nil,
		"exit with 3 if a metric is worse than in --compare by more than this, "+
			"as in accuracy=0.02 (repeatable)")
	f.StringVar(&o.samples, "samples", "",
		"write the prediction for each row to this file, one JSON object a line")
	f.StringVar(&o.junit, "junit", "", "write the gates as a JUnit report to this file")
	f.BoolVar(&o.exact, "exact-match", false,
		"count the rows whose target is what the model generates "+
			"(implied by a gate on exact_match)")
	f.BoolVar(&o.noBaseline, "no-baseline", false, "do not measure the base without the prompt")
	f.BoolVar(&o.calibration, "calibration", false,
		"measure the calibration error of a task with many labels, too: it needs the probability of "+
			"every label, which takes several times as long (implied by --json, --samples and a "+
			"gate on calibration_error)")
	f.IntVar(&o.maxTokens, "batch-tokens", tokensAtOnce,
		"tokens of text computed at a time; fewer need less memory")
	f.IntVar(&o.maxTokens, "max-tokens", tokensAtOnce, "tokens of text computed at a time")
	cobra.CheckErr(f.MarkHidden("max-tokens")) // the old name of --batch-tokens
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the results as JSON, one object for each prompt")
	quietFlag(f, &o.quiet)
	return cmd
}

// summaryVariable is the environment variable in which GitHub Actions names the file of a step's summary.
const summaryVariable = "GITHUB_STEP_SUMMARY"

func evalPrompts(ctx context.Context, o evalFlags, s streams) error {
	gates, err := o.gates.Gates()
	if err != nil {
		return failure.Usage(err)
	}
	o.taskFlags.warn(s)
	var paths []string
	var sizes []int // of each ensemble, in members
	for _, joined := range o.prompts {
		members := base.Members(joined)
		paths, sizes = append(paths, members...), append(sizes, len(members))
	}
	for _, path := range []string{o.samples, o.junit} {
		if path != "" {
			if err := files.Check(path, append(slices.Clone(paths), o.data)...); err != nil {
				return failure.Usage(err)
			}
		}
	}
	summary := os.Getenv(summaryVariable)
	if summary != "" {
		if err := report.CheckSummary(summary); err != nil {
			return failure.Usage(failure.Hint(err, "the path comes from %s; unset it for no summary", summaryVariable))
		}
	}
	prompts, b, err := openPrompts(ctx, paths, o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	evals, err := evaluations(ctx, o, b, prompts, sizes)
	if err != nil {
		return failure.Usage(err)
	}
	options := run.MeasureOptions{
		MaxTokens: o.maxTokens, NoBaseline: o.noBaseline, ExactMatch: o.exact, Answers: o.samples != "",
		Probabilities: o.calibration || o.json || o.samples != "", Tell: evaluationProgress(o.quiet, s),
	}
	for _, g := range gates {
		options.Probabilities = options.Probabilities || g.Metric == eval.MetricCalibration
		options.ExactMatch = options.ExactMatch || g.Metric == eval.MetricExactMatch
	}
	var missed []error
	var results []eval.Evaluation
	var samples bytes.Buffer
	for n, e := range evals {
		s.warnAll(e.Set.Notes())
		res, err := e.Measure(ctx, options)
		if err != nil {
			return err
		}
		if o.json {
			err = json.NewEncoder(s.out).Encode(res)
		} else {
			err = res.Text(s.out)
		}
		if err != nil {
			return err
		}
		if note := eval.OtherRows(gates, res, n); note != "" {
			s.warn("%s", note)
		}
		missed = append(missed, eval.CheckGates(gates, res, n))
		if o.samples != "" {
			if err := e.WriteSamples(&samples, res); err != nil {
				return err
			}
		}
		results = append(results, res)
	}
	err = errors.Join(missed...)
	if o.samples != "" {
		err = errors.Join(err, files.WriteBytes(o.samples, samples.Bytes()))
	}
	if o.junit != "" {
		err = errors.Join(err, files.WriteBytes(o.junit, report.JUnit(run.GateCases(gates))))
	}
	if summary != "" {
		err = errors.Join(err, report.AppendSummary(summary, run.EvaluationTable(results),
			run.GateCases(gates)))
	}
	return err
}

// evaluations returns what the flags ask to measure.
func evaluations(ctx context.Context, o evalFlags, b *base.Base, prompts []base.Prompt,
	sizes []int) ([]*run.Evaluation, error) {
	if len(sizes) == 0 {
		if o.data == "" || o.target == "" {
			return nil, errors.New("the base alone needs --data, --input and --target to know its rows")
		}
		alone := base.Prompt{Prompt: &prompt.Prompt{Meta: prompt.Meta{
			Input: o.input, Target: o.target, Labels: prompt.ParseLabels(o.labels),
		}}}
		if err := setScores(o.scores, []base.Prompt{alone}); err != nil {
			return nil, err
		}
		e, err := run.EvaluateBase(ctx, b, o.data, alone.Meta)
		return []*run.Evaluation{e}, err
	}
	if err := o.setAll(b, prompts); err != nil {
		return nil, err
	}
	if err := setScores(o.scores, prompts); err != nil {
		return nil, err
	}
	var all []*run.Evaluation
	for _, n := range sizes {
		evals, err := run.EvaluatePrompts(ctx, b, prompts[:n], o.data)
		if err != nil {
			return nil, err
		}
		all, prompts = append(all, evals...), prompts[n:]
	}
	return all, nil
}
