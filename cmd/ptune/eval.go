package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/data"
	"ptune/internal/eval"
)

type evalFlags struct {
	prompts    []string
	model      string
	data       string
	input      string
	target     string
	labels     []string
	failUnder  []string
	noBaseline bool
	maxTokens  int
	computeOptions
	json bool
}

func newEval(s streams) *cobra.Command {
	var o evalFlags
	cmd := &cobra.Command{
		Use:   "eval --prompt x.st",
		Short: "Measure a soft prompt on rows, beside the base without it",
		Long: `Measure loss and perplexity of the rows' targets and, where the task has labels, accuracy and macro-F1 by the
log-likelihood of each label. Templates, labels and base come from the prompt's file, the rows from --data or else from the
files it was validated on. The same base without the prompt is measured beside it.

Prompts that a comma joins are an ensemble: each gives a row the label it finds likeliest, in one pass over the base, and most votes win
(Lester et al. 2021, section 6). The loss is then the mean of theirs.

With --model and no --prompt the base alone is measured; --input and --target then say how rows become text.`,
		Example: "  ptune eval --prompt runs/sentiment.st --data internal/demo/data/test.jsonl\n  ptune eval --prompt runs/sentiment.st --json --fail-under accuracy=0.9",
		Args:    cobra.NoArgs,
		RunE:    does(func(ctx context.Context, _ []string) error { return evalPrompts(ctx, o, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil, "a soft prompt's file, or an ensemble's as a.st,b.st,c.st (repeatable: all are measured on one loaded base)")
	f.StringVar(&o.model, "model", "", "the base's directory, if not where the prompt's file says")
	f.StringVar(&o.data, "data", "", "the rows (.jsonl, .csv or .tsv, written as the training rows were)")
	f.StringVar(&o.input, "input", "", "without --prompt: the input template")
	f.StringVar(&o.target, "target", "", "without --prompt: the target template")
	f.StringSliceVar(&o.labels, "labels", nil, "without --prompt: the labels, as name,name or value=name,value=name")
	f.StringArrayVar(&o.failUnder, "fail-under", nil, "exit with 3 if a metric is lower, as in accuracy=0.9 (accuracy, macro_f1; repeatable)")
	f.BoolVar(&o.noBaseline, "no-baseline", false, "do not measure the base without the prompt")
	f.IntVar(&o.maxTokens, "max-tokens", 4096, "tokens of text computed at a time")
	o.computeOptions.flags(cmd)
	f.BoolVar(&o.json, "json", false, "print the result as JSON, one object a prompt")
	return cmd
}

// evalResult is the JSON of an evaluation.
type evalResult struct {
	Prompt string `json:"prompt,omitempty"`
	Data   string `json:"data"`
	*eval.Result
	Baseline *eval.Result `json:"baseline,omitempty"`
}

func evalPrompts(ctx context.Context, o evalFlags, s streams) error {
	gates, err := parseGates(o.failUnder)
	if err != nil {
		return wrong{err}
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
	defer b.close()
	var ensembles [][]namedPrompt
	for _, n := range sizes {
		ensembles, prompts = append(ensembles, prompts[:n]), prompts[n:]
	}
	jobs, err := evalJobs(o, b, ensembles)
	if err != nil {
		return wrong{err}
	}
	var missed []error
	for _, j := range jobs {
		if note := j.set.Shortened(); note != "" {
			s.warn("%s", note)
		}
		res := evalResult{Prompt: j.path, Data: j.set.Path}
		if res.Result, err = eval.Run(ctx, b, j.values, evalRows(j.set), evalOptions(j.choices, j.eos, j.rows, o.maxTokens)); err != nil {
			return err
		}
		if len(j.rows) > 0 && !o.noBaseline {
			if res.Baseline, err = baseline(ctx, b, j, o.maxTokens); err != nil {
				return err
			}
		}
		if err := printEval(s, o.json, res); err != nil {
			return err
		}
		for _, g := range gates {
			if err := g.check(res); err != nil {
				missed = append(missed, err)
			}
		}
	}
	return errors.Join(missed...)
}

// evalJob is rows to measure behind a prompt, or behind none.
type evalJob struct {
	path    string
	values  []float32
	rows    []int // of the prompt, or of each of an ensemble
	set     *data.Set
	choices []data.Choice
	eos     int32

	maxTokens int // of a row, as in training
	onTooLong string
	reading   data.Reading
}

// noLimit is for the base alone: its positions are the limit.
const noLimit = 1 << 30

// split is the files of an ensemble that a comma joins; a file whose name has a comma is one.
func split(paths string) []string {
	if _, err := os.Stat(paths); err == nil {
		return []string{paths}
	}
	return strings.Split(paths, ",")
}

func evalJobs(o evalFlags, b *base, ensembles [][]namedPrompt) ([]evalJob, error) {
	if len(ensembles) == 0 {
		if o.data == "" || o.target == "" {
			return nil, errors.New("the base alone needs --data, --input and --target to know its rows")
		}
		eos, err := b.eos()
		if err != nil {
			return nil, err
		}
		j := evalJob{eos: eos, maxTokens: noLimit, onTooLong: data.TooLongIsError}
		err = j.load(b, o.data, o.input, o.target, parseLabels(o.labels))
		return []evalJob{j}, err
	}
	if o.input != "" || o.target != "" || len(o.labels) > 0 {
		return nil, errors.New("--input, --target and --labels are for the base alone; a prompt's file has its own")
	}
	var jobs []evalJob
	for _, members := range ensembles {
		p := members[0]
		j := evalJob{eos: p.Meta.EOS, maxTokens: p.Meta.MaxTokens, onTooLong: p.Meta.OnTooLong, reading: data.Reading(p.Meta.Reading)}
		var names []string
		for _, m := range members {
			if m.Meta.Input != p.Meta.Input || m.Meta.Target != p.Meta.Target || !slices.Equal(m.Meta.Labels, p.Meta.Labels) || m.Meta.EOS != p.Meta.EOS {
				return nil, fmt.Errorf("%s and %s have other templates or labels, so they are no ensemble", p.path, m.path)
			}
			names, j.values, j.rows = append(names, m.path), append(j.values, m.Values...), append(j.rows, m.Rows)
		}
		j.path = strings.Join(names, ",")
		if len(members) > 1 && len(p.Meta.Labels) == 0 {
			return nil, fmt.Errorf("%s have no labels to vote on", j.path)
		}
		if p.Meta.Target == "" {
			return nil, fmt.Errorf("%s has no templates to make rows with; is it a PEFT adapter?", p.path)
		}
		var labels []data.Label
		for _, l := range p.Meta.Labels {
			labels = append(labels, data.Label(l))
		}
		files := []string{o.data}
		if o.data == "" {
			files = nil
			for _, v := range p.Meta.Valid {
				files = append(files, pathAt(p.path, v.Path))
			}
			if files == nil {
				return nil, fmt.Errorf("%s was not validated on any file; give the rows with --data", p.path)
			}
		}
		for _, file := range files {
			j := j
			if err := j.load(b, file, p.Meta.Input, p.Meta.Target, labels); err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// load reads the job's rows.
func (j *evalJob) load(b *base, file, input, target string, labels []data.Label) error {
	f, err := data.NewFormat(input, target, labels)
	if err != nil {
		return err
	}
	if j.choices, err = f.Choices(b.tok); err != nil {
		return err
	}
	limits, err := rowLimits(b, slices.Max(append(j.rows, 0)), j.maxTokens, j.onTooLong, j.eos)
	if err != nil {
		return err
	}
	j.set, err = data.Load("data", data.Source{Path: file, Reading: j.reading}, f, b.tok, limits)
	return err
}

// baseline measures the base without the prompt. A base cannot begin from nothing: rows without any input token have none.
func baseline(ctx context.Context, b *base, j evalJob, maxTokens int) (*eval.Result, error) {
	for _, r := range j.set.Rows {
		if len(r.Input) == 0 {
			return nil, nil
		}
	}
	return eval.Run(ctx, b, nil, evalRows(j.set), evalOptions(j.choices, j.eos, nil, maxTokens))
}

func printEval(s streams, asJSON bool, r evalResult) error {
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
		t.WriteByte('\n')
	}
	line("loss", func(e *eval.Result) *float64 { return &e.Loss })
	line("perplexity", func(e *eval.Result) *float64 { return &e.Perplexity })
	for i, m := range r.Members {
		fmt.Fprintf(&t, "  member %-4d %8.4f   loss %8.4f\n", i+1, *m.Accuracy, m.Loss)
	}
	line("accuracy", func(e *eval.Result) *float64 { return e.Accuracy })
	line("macro-F1", func(e *eval.Result) *float64 { return e.MacroF1 })
	_, err := fmt.Fprint(s.out, t.String())
	return err
}

// gate is a metric's lowest good value.
type gate struct {
	metric string
	least  float64
}

func parseGates(list []string) ([]gate, error) {
	var gates []gate
	for _, s := range list {
		metric, value, _ := strings.Cut(s, "=")
		least, err := strconv.ParseFloat(value, 64)
		if err != nil || metric != "accuracy" && metric != "macro_f1" {
			return nil, fmt.Errorf("--fail-under %q: want accuracy=NUMBER or macro_f1=NUMBER", s)
		}
		gates = append(gates, gate{metric, least})
	}
	return gates, nil
}

func (g gate) check(r evalResult) error {
	value := r.Accuracy
	if g.metric == "macro_f1" {
		value = r.MacroF1
	}
	switch {
	case value == nil:
		return wrong{fmt.Errorf("--fail-under %s: %s has no labels, so there is no %s", g.metric, r.Data, g.metric)}
	case !(*value >= g.least):
		return fmt.Errorf("%w: %s is %.4f on %s, --fail-under asks for %g", errGate, g.metric, *value, r.Data, g.least)
	}
	return nil
}

// parseLabels reads name or value=name.
func parseLabels(list []string) []data.Label {
	var labels []data.Label
	for _, s := range list {
		value, name, ok := strings.Cut(s, "=")
		if !ok {
			name = value
		}
		labels = append(labels, data.Label{Value: value, Name: name})
	}
	return labels
}
