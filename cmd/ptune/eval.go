package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/files"
	"ptune/internal/infer"
	"ptune/internal/prompt"
	"ptune/internal/report"
	"ptune/internal/run"
)

type evalFlags struct {
	prompts []string
	model   string
	data    string
	input   string
	target  string
	labels  []string
	gateFlags
	samples    string
	junit      string
	exact      bool
	noBaseline bool
	maxTokens  int
	computeOptions
	json bool
}

func newEval(s streams) *cobra.Command {
	var o evalFlags
	cmd := &cobra.Command{
		Use:   "eval --prompt x.st",
		Short: "Measure a soft prompt on rows, and the base without it",
		Long: `Measure loss and perplexity of the targets of rows. If the task has labels, also measure accuracy and
macro-F1: the predicted label is the one with the highest likelihood. Templates, labels and the base model come
from the prompt's file. The rows come from --data or, without it, from the validation files used in training.
The base without the prompt is measured as well.

Prompts joined by commas are an ensemble: in one pass over the base, each prompt votes for the label it finds
likeliest, and the label with most votes is predicted (Lester et al. 2021, section 6). The loss is the mean of
the prompts' losses.

With --model and without --prompt, the base alone is measured. --input and --target then give the templates.`,
		Example: `  ptune eval --prompt runs/sentiment.st --data internal/demo/data/test.jsonl
  ptune eval --prompt runs/sentiment.st --json --fail-under accuracy=0.9`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error { return evalPrompts(ctx, o, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil,
		"prompt file, or an ensemble as a.st,b.st,c.st (repeatable: all are measured on "+
			"one loaded base)")
	f.StringVar(&o.model, "model", "",
		"directory of the base model, if it is not where the prompt's file says")
	f.StringVar(&o.data, "data", "",
		"file of rows, in the format of the training rows (.jsonl, .csv, .tsv; .parquet "+
			"if ptune was built with it)")
	f.StringVar(&o.input, "input", "", "input template, only without --prompt")
	f.StringVar(&o.target, "target", "", "target template, only without --prompt")
	f.StringSliceVar(&o.labels, "labels", nil,
		"labels, as name,name or value=name,value=name, only without --prompt")
	o.gateFlags.flags(f)
	f.StringVar(&o.samples, "samples", "",
		"write the prediction for each row to this file, one JSON object a line")
	f.StringVar(&o.junit, "junit", "", "write the gates as a JUnit report to this file")
	f.BoolVar(&o.exact, "exact-match", false,
		"also generate text for each row, and count the rows where it is the target "+
			"(implied by a gate on exact_match)")
	f.BoolVar(&o.noBaseline, "no-baseline", false, "do not measure the base without the prompt")
	f.IntVar(&o.maxTokens, "max-tokens", 4096,
		"tokens of text computed at a time; fewer need less memory")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the results as JSON, one object for each prompt")
	return cmd
}

func evalPrompts(ctx context.Context, o evalFlags, s streams) error {
	gates, err := o.gates()
	if err != nil {
		return failure.Usage(err)
	}
	var paths []string
	var sizes []int // of each ensemble, in members
	for _, joined := range o.prompts {
		members := split(joined)
		paths, sizes = append(paths, members...), append(sizes, len(members))
	}
	prompts, b, err := openPrompts(paths, o.model, o.computeOptions)
	if err != nil {
		return err
	}
	defer b.Close()
	var ensembles [][]base.Prompt
	for _, n := range sizes {
		ensembles, prompts = append(ensembles, prompts[:n]), prompts[n:]
	}
	jobs, err := evalJobs(o, b, ensembles)
	if err != nil {
		return failure.Usage(err)
	}
	var missed []error
	var results []eval.Evaluation
	var samples bytes.Buffer
	for n, j := range jobs {
		if note := j.set.Shortened(); note != "" {
			s.warn("%s", note)
		}
		exact := o.exact || slices.ContainsFunc(gates, func(g eval.Gate) bool {
			return g.Metric == eval.MetricExactMatch
		})
		res, err := j.measure(ctx, b, o, exact)
		if err != nil {
			return err
		}
		if err := printEval(s, o.json, res); err != nil {
			return err
		}
		missed = append(missed, checkGates(gates, res, n))
		writeSamples(&samples, j, res)
		results = append(results, res)
	}
	err = errors.Join(missed...)
	if o.samples != "" {
		err = errors.Join(err, files.WriteBytes(o.samples, samples.Bytes()))
	}
	if o.junit != "" {
		err = errors.Join(err, files.WriteBytes(o.junit, report.JUnit(cases(gates))))
	}
	if summary := os.Getenv("GITHUB_STEP_SUMMARY"); summary != "" {
		err = errors.Join(err, report.AppendSummary(summary, summaryTable(results), cases(gates)))
	}
	return err
}

// evalJob is rows to measure after a prompt, after each prompt of an ensemble, or after none.
type evalJob struct {
	path    string
	words   string    // the text that the prompt was initialised from
	values  []float32 // of all prompts
	rows    []int     // of each prompt
	set     *data.Set
	choices []data.Choice
	eos     int32
}

// noLimit is the longest row of the base alone: only its positions limit it.
const noLimit = 1 << 30

// split returns the files of an ensemble, joined by commas. The name of one file may contain commas.
func split(paths string) []string {
	if _, err := os.Stat(paths); err == nil {
		return []string{paths}
	}
	return strings.Split(paths, ",")
}

func evalJobs(o evalFlags, b *base.Base, ensembles [][]base.Prompt) ([]evalJob, error) {
	if len(ensembles) == 0 {
		if o.data == "" || o.target == "" {
			return nil, errors.New("the base alone needs --data, --input and --target to know its rows")
		}
		eos, err := b.EndToken()
		if err != nil {
			return nil, err
		}
		var j evalJob
		err = j.load(b, o.data, &prompt.Meta{
			Input: o.input, Target: o.target, Labels: parseLabels(o.labels), EOS: eos,
			MaxTokens: noLimit, OnTooLong: data.TooLongIsError,
		})
		return []evalJob{j}, err
	}
	if o.input != "" || o.target != "" || len(o.labels) > 0 {
		return nil, errors.New("--input, --target and --labels are for the base alone; a prompt's file has its own")
	}
	var jobs []evalJob
	for _, members := range ensembles {
		of, err := promptJobs(o, b, members)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, of...)
	}
	return jobs, nil
}

// promptJobs returns a job for each file of rows to measure a prompt or an ensemble on.
func promptJobs(o evalFlags, b *base.Base, members []base.Prompt) ([]evalJob, error) {
	p := members[0]
	var one evalJob
	var names []string
	for _, m := range members {
		if !sameTask(&m.Meta, &p.Meta) {
			return nil, fmt.Errorf("%s and %s have different templates or labels, so they are no ensemble",
				p.Path, m.Path)
		}
		names = append(names, m.Path)
		one.values, one.rows = append(one.values, m.Values...), append(one.rows, m.Rows)
	}
	one.path = strings.Join(names, ",")
	if len(members) == 1 && p.Meta.Chat == "" {
		one.words = p.Meta.Init.Text
	}
	if len(members) > 1 && len(p.Meta.Labels) == 0 {
		return nil, fmt.Errorf("%s have no labels to vote on", one.path)
	}
	if p.Meta.Target == "" && p.Meta.Messages == "" {
		return nil, fmt.Errorf("%s has no templates to make rows with; is it a PEFT adapter?", p.Path)
	}
	files := []string{o.data}
	if o.data == "" {
		files = nil
		for _, v := range p.Meta.Valid {
			files = append(files, base.PathAt(p.Path, v.Path))
		}
		if files == nil {
			return nil, fmt.Errorf("%s was trained without validation files; give the rows with --data", p.Path)
		}
	}
	var jobs []evalJob
	for _, file := range files {
		j := one
		if err := j.load(b, file, &p.Meta); err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// sameTask reports whether prompts read and answer rows alike.
func sameTask(a, b *prompt.Meta) bool {
	return a.Input == b.Input && a.Target == b.Target && slices.Equal(a.Labels, b.Labels) &&
		a.Chat == b.Chat && a.Messages == b.Messages && a.EOS == b.EOS
}

// load reads the job's rows in the form that m describes.
func (j *evalJob) load(b *base.Base, file string, m *prompt.Meta) error {
	task, err := infer.NewTask(m, b, b.Tokenizer)
	if err != nil {
		return err
	}
	f, choices, err := task.Format()
	if err != nil {
		return err
	}
	j.choices, j.eos = choices, m.EOS
	limits, err := run.RowLimits(b, slices.Max(append(j.rows, 0)), m.MaxTokens, m.OnTooLong, m.EOS)
	if err != nil {
		return err
	}
	from := data.Source{Path: file, Reading: data.Reading(m.Reading)}
	j.set, err = data.Load("data", from, f, b.Tokenizer, limits)
	return err
}

// measure evaluates the job and what it is compared with.
func (j *evalJob) measure(ctx context.Context, b *base.Base, o evalFlags, exact bool) (res eval.Evaluation,
	err error) {
	res = eval.Evaluation{Prompt: j.path, Data: j.set.Path}
	options, rows := run.EvalOptions(j.choices, j.eos, j.rows, o.maxTokens), run.EvalRows(j.set)
	for _, c := range j.choices {
		options.Names = append(options.Names, c.Name)
	}
	if res.Result, err = eval.Run(ctx, b, j.values, rows, options); err != nil {
		return res, err
	}
	if exact {
		if res.ExactMatch, err = j.exactMatch(ctx, b, rows, o.maxTokens); err != nil {
			return res, err
		}
	}
	if len(j.rows) == 0 || o.noBaseline {
		return res, nil
	}
	if res.Baseline, err = eval.Alone(ctx, b, rows, options); err == nil && j.words != "" {
		res.AsWords, err = eval.AsWords(ctx, b, b.Tokenizer.EncodeInput, j.words, rows, options, b.MaxPositions)
	}
	return res, err
}

// exactMatch returns the share of rows whose target is what the model generates.
func (j *evalJob) exactMatch(ctx context.Context, b *base.Base, rows []eval.Row,
	maxTokens int) (*float64, error) {
	if len(j.rows) > 1 {
		return nil, failure.Usage(fmt.Errorf(
			"%s is an ensemble, which votes on labels and generates no text: it has no exact match", j.path))
	}
	engine := infer.New(b.NewDecoder(cacheBytes), infer.Options{})
	var p *infer.Prompt
	if len(j.rows) == 1 {
		var err error
		if p, err = engine.AddPrompt(j.values, j.rows[0]); err != nil {
			return nil, err
		}
	}
	share, err := eval.ExactMatch(ctx, engine, p, rows, j.eos, maxTokens)
	return &share, err
}

func printEval(s streams, asJSON bool, r eval.Evaluation) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(r)
	}
	var t strings.Builder
	name := r.Prompt
	if name == "" {
		name = "base"
	}
	fmt.Fprintf(&t, "%s on %s (%d rows)\n", name, r.Data, r.Rows)
	line := func(metric string, value func(*eval.Result) *float64) {
		if value(r.Result) == nil {
			return
		}
		fmt.Fprintf(&t, "  %-11s %8.4f", metric, *value(r.Result))
		if r.Baseline != nil {
			fmt.Fprintf(&t, "   without the prompt %8.4f", *value(r.Baseline))
		}
		if r.AsWords != nil {
			fmt.Fprintf(&t, "   as plain words %8.4f", *value(r.AsWords))
		}
		if i, ok := r.Intervals[strings.ReplaceAll(strings.ToLower(metric), "-", "_")]; ok {
			fmt.Fprintf(&t, "   [%.4f–%.4f]", i[0], i[1])
		}
		t.WriteByte('\n')
	}
	line("loss", func(e *eval.Result) *float64 { return &e.Loss })
	line("perplexity", func(e *eval.Result) *float64 { return &e.Perplexity })
	for i, m := range r.Members {
		fmt.Fprintf(&t, "  member %-4d %8.4f   loss %8.4f\n", i+1, *m.Accuracy, m.Loss)
	}
	line("accuracy", func(e *eval.Result) *float64 { return e.Accuracy })
	line("macro-F1", func(e *eval.Result) *float64 { return e.MacroF1 })
	if r.ExactMatch != nil {
		fmt.Fprintf(&t, "  %-11s %8.4f\n", "exact match", *r.ExactMatch)
	}
	if r.MCC != nil {
		fmt.Fprintf(&t, "  %-11s %8.4f\n  %-11s %8.4f\n", "MCC", *r.MCC, "calibration", *r.CalibrationError)
	}
	if len(r.Classes) > 0 {
		w := tabwriter.NewWriter(&t, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  label\tprecision\trecall\tF1\trows")
		for _, c := range r.Classes {
			fmt.Fprintf(w, "  %s\t%.4f\t%.4f\t%.4f\t%d\n", c.Label, c.Precision, c.Recall, c.F1, c.Rows)
		}
		w.Flush()
	}
	_, err := fmt.Fprint(s.out, t.String())
	return err
}

// parseLabels reads labels, each a name or value=name.
func parseLabels(list []string) []prompt.Label {
	var labels []prompt.Label
	for _, s := range list {
		value, name, ok := strings.Cut(s, "=")
		if !ok {
			name = value
		}
		labels = append(labels, prompt.Label{Value: value, Name: name})
	}
	return labels
}
