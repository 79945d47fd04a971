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
	"ptune/internal/prompt"
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
		Short: "Measure a soft prompt on rows, beside the base without it",
		Long: `Measure loss and perplexity of the rows' targets and, where the task has labels, accuracy and macro-F1 by the
log-likelihood of each label. Templates, labels and base come from the prompt's file, the rows from --data or else from the
files it was validated on. The same base without the prompt is measured beside it.

Prompts that a comma joins are an ensemble: each gives a row the label it finds likeliest, in one pass over the base, and most votes win
(Lester et al. 2021, section 6). The loss is then the mean of theirs.

With --model and no --prompt the base alone is measured; --input and --target then say how rows become text.`,
		Example: "  ptune eval --prompt runs/sentiment.st --data internal/demo/data/test.jsonl\n  ptune eval --prompt runs/sentiment.st --json --fail-under accuracy=0.9",
		Args:    cobra.NoArgs,
		RunE:    runE(func(ctx context.Context, _ []string) error { return evalPrompts(ctx, o, s) }),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil, "a soft prompt's file, or an ensemble's as a.st,b.st,c.st (repeatable: all are measured on one loaded base)")
	f.StringVar(&o.model, "model", "", "the base's directory, if not where the prompt's file says")
	f.StringVar(&o.data, "data", "", "the rows (.jsonl, .csv, .tsv, or .parquet where it was built in, written as the training rows were)")
	f.StringVar(&o.input, "input", "", "without --prompt: the input template")
	f.StringVar(&o.target, "target", "", "without --prompt: the target template")
	f.StringSliceVar(&o.labels, "labels", nil, "without --prompt: the labels, as name,name or value=name,value=name")
	o.gateFlags.flags(f)
	f.StringVar(&o.samples, "samples", "", "write each row's prediction to this file, one JSON object a line")
	f.StringVar(&o.junit, "junit", "", "write the gates as a JUnit report to this file")
	f.BoolVar(&o.exact, "exact-match", false, "also write each row's answer token by token, and count those that are its target (a gate on exact_match does so, too)")
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
	ExactMatch *float64     `json:"exact_match,omitempty"` // share of rows whose target is what the model writes
	Baseline   *eval.Result `json:"baseline,omitempty"`    // the base alone
	AsWords    *eval.Result `json:"as_words,omitempty"`    // the base behind the text that the prompt began from
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
	var results []evalResult
	var samples bytes.Buffer
	for n, j := range jobs {
		if note := j.set.Shortened(); note != "" {
			s.warn("%s", note)
		}
		res := evalResult{Prompt: j.path, Data: j.set.Path}
		options := run.EvalOptions(j.choices, j.eos, j.rows, o.maxTokens)
		for _, c := range j.choices {
			options.Names = append(options.Names, c.Name)
		}
		if res.Result, err = eval.Run(ctx, b, j.values, run.EvalRows(j.set), options); err != nil {
			return err
		}
		if o.exact || slices.ContainsFunc(gates, func(g gate) bool { return g.metric == "exact_match" }) {
			if len(j.rows) > 1 {
				return failure.Usage(fmt.Errorf("%s is an ensemble, which votes on labels and writes nothing: there is no exact match to measure", j.path))
			}
			if res.ExactMatch, err = exactMatch(ctx, b, j, o.maxTokens); err != nil {
				return err
			}
		}
		if len(j.rows) > 0 && !o.noBaseline {
			if res.Baseline, err = baseline(ctx, b, j, o.maxTokens); err != nil {
				return err
			}
			if res.AsWords, err = asWords(ctx, b, j, o.maxTokens); err != nil {
				return err
			}
		}
		if err := printEval(s, o.json, res); err != nil {
			return err
		}
		for i := range gates {
			if err := gates[i].check(res, n); err != nil {
				missed = append(missed, err)
			}
		}
		writeSamples(&samples, j, res)
		results = append(results, res)
	}
	err = errors.Join(missed...)
	if o.samples != "" {
		err = errors.Join(err, files.WriteBytes(o.samples, samples.Bytes()))
	}
	if o.junit != "" {
		err = errors.Join(err, files.WriteBytes(o.junit, junit(gates)))
	}
	if summary := os.Getenv("GITHUB_STEP_SUMMARY"); summary != "" {
		err = errors.Join(err, writeSummary(summary, results, gates))
	}
	return err
}

// evalJob is rows to measure behind a prompt, or behind none.
type evalJob struct {
	path    string
	text    string // what the prompt began from
	values  []float32
	rows    []int // of the prompt, or of each of an ensemble
	set     *data.Set
	choices []data.Choice
	eos     int32
	chat    bool

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

func evalJobs(o evalFlags, b *base.Base, ensembles [][]base.Prompt) ([]evalJob, error) {
	if len(ensembles) == 0 {
		if o.data == "" || o.target == "" {
			return nil, errors.New("the base alone needs --data, --input and --target to know its rows")
		}
		eos, err := b.EndToken()
		if err != nil {
			return nil, err
		}
		j := evalJob{eos: eos, maxTokens: noLimit, onTooLong: data.TooLongIsError}
		err = j.load(b, o.data, o.input, o.target, parseLabels(o.labels), nil)
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
			if m.Meta.Input != p.Meta.Input || m.Meta.Target != p.Meta.Target || !slices.Equal(m.Meta.Labels, p.Meta.Labels) || m.Meta.Chat != p.Meta.Chat || m.Meta.Messages != p.Meta.Messages || m.Meta.EOS != p.Meta.EOS {
				return nil, fmt.Errorf("%s and %s have other templates or labels, so they are no ensemble", p.Path, m.Path)
			}
			names, j.values, j.rows = append(names, m.Path), append(j.values, m.Values...), append(j.rows, m.Rows)
		}
		j.path = strings.Join(names, ",")
		if len(members) == 1 {
			j.text = p.Meta.Init.Text
		}
		if len(members) > 1 && len(p.Meta.Labels) == 0 {
			return nil, fmt.Errorf("%s have no labels to vote on", j.path)
		}
		if p.Meta.Target == "" && p.Meta.Messages == "" {
			return nil, fmt.Errorf("%s has no templates to make rows with; is it a PEFT adapter?", p.Path)
		}
		var labels []data.Label
		for _, l := range p.Meta.Labels {
			labels = append(labels, data.Label(l))
		}
		files := []string{o.data}
		if o.data == "" {
			files = nil
			for _, v := range p.Meta.Valid {
				files = append(files, base.PathAt(p.Path, v.Path))
			}
			if files == nil {
				return nil, fmt.Errorf("%s was not validated on any file; give the rows with --data", p.Path)
			}
		}
		for _, file := range files {
			j := j
			if err := j.load(b, file, p.Meta.Input, p.Meta.Target, labels, &p.Meta); err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// load reads the job's rows, in the form that a prompt's m asks for; nil: the base's alone.
func (j *evalJob) load(b *base.Base, file, input, target string, labels []data.Label, m *prompt.Meta) error {
	f, err := data.NewFormat(input, target, labels)
	if m != nil && m.Messages != "" {
		f, err = data.NewConversations(m.Messages), nil
	}
	if err != nil {
		return err
	}
	if m != nil && m.Chat != "" {
		j.chat = true
		t, err := b.ChatOf(m.Chat)
		if err != nil {
			return err
		}
		if _, err := f.UseChat(t, b.Tokenizer, []int32{m.EOS}); err != nil {
			return err
		}
	}
	if j.choices, err = f.Choices(b.Tokenizer); err != nil {
		return err
	}
	limits, err := run.RowLimits(b, slices.Max(append(j.rows, 0)), j.maxTokens, j.onTooLong, j.eos)
	if err != nil {
		return err
	}
	j.set, err = data.Load("data", data.Source{Path: file, Reading: j.reading}, f, b.Tokenizer, limits)
	return err
}

// baseline measures the base without the prompt. A base cannot begin from nothing: rows without any input token have none.
func baseline(ctx context.Context, b *base.Base, j evalJob, maxTokens int) (*eval.Result, error) {
	for _, r := range j.set.Rows {
		if len(r.Input) == 0 {
			return nil, nil
		}
	}
	return eval.Run(ctx, b, nil, run.EvalRows(j.set), run.EvalOptions(j.choices, j.eos, nil, maxTokens))
}

// asWords measures the base behind the words that the soft prompt began from, an ordinary prompt; nil where there are none, or where
// they leave a row too long for the model or stand before a chat.
func asWords(ctx context.Context, b *base.Base, j evalJob, maxTokens int) (*eval.Result, error) {
	if j.text == "" || j.chat {
		return nil, nil
	}
	rows := run.EvalRows(j.set)
	for i, r := range j.set.Rows {
		ids, err := b.Tokenizer.EncodeInput(j.text + "\n" + r.Text)
		if err != nil {
			return nil, err
		}
		if rows[i].Input = ids; b.MaxPositions > 0 && len(ids)+len(r.Target) > b.MaxPositions {
			return nil, nil
		}
	}
	return eval.Run(ctx, b, nil, rows, run.EvalOptions(j.choices, j.eos, nil, maxTokens))
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
		if r.AsWords != nil {
			fmt.Fprintf(&t, "   its text instead %8.4f", *value(r.AsWords))
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
