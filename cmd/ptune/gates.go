package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/report"
)

// gateFlags are what an evaluation must reach.
type gateFlags struct {
	failUnder, failOver, maxDrop []string
	compare                      string
}

func (o *gateFlags) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.failUnder, "fail-under", nil,
		"exit with 3 if a metric is lower, as in accuracy=0.9; one of "+
			strings.Join(eval.Metrics(), ", ")+" (repeatable)")
	f.StringArrayVar(&o.failOver, "fail-over", nil,
		"exit with 3 if a metric is higher, as in loss=0.5 (repeatable)")
	f.StringVar(&o.compare, "compare", "",
		"JSON file of an earlier evaluation, for --max-drop")
	f.StringArrayVar(&o.maxDrop, "max-drop", nil,
		"exit with 3 if a metric is worse than in --compare by more than this, "+
			"as in accuracy=0.02 (repeatable)")
}

// gates returns the gates that the flags describe.
func (o gateFlags) gates() ([]eval.Gate, error) {
	if (o.compare == "") != (len(o.maxDrop) == 0) {
		return nil, errors.New("--compare and --max-drop need each other: " +
			"an earlier evaluation, and how much worse a metric may be")
	}
	var before []eval.Evaluation
	if o.compare != "" {
		f, err := os.Open(o.compare)
		if err != nil {
			return nil, fmt.Errorf("--compare: %w", err)
		}
		defer f.Close()
		if before, err = eval.Read(f); err != nil {
			return nil, fmt.Errorf("--compare %s: %w", o.compare, err)
		}
	}
	var gates []eval.Gate
	for _, f := range []struct {
		option string
		texts  []string
		over   bool
		before []eval.Evaluation
	}{
		{"--fail-under", o.failUnder, false, nil},
		{"--fail-over", o.failOver, true, nil},
		{"--max-drop", o.maxDrop, false, before},
	} {
		for _, text := range f.texts {
			g, err := eval.ParseGate(f.option, text)
			if err != nil {
				return nil, err
			}
			g.Over, g.Before = f.over, f.before
			gates = append(gates, g)
		}
	}
	return gates, nil
}

// checkGates checks evaluation number n, from 0, and returns the errors of missed gates.
func checkGates(gates []eval.Gate, e eval.Evaluation, n int) error {
	var errs []error
	for i := range gates {
		err := gates[i].Check(e, n)
		if err != nil && !errors.Is(err, eval.ErrGate) { // the gate does not apply
			err = failure.Usage(err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cases returns gates that were checked as a report shows them.
func cases(gates []eval.Gate) []report.Case {
	var all []report.Case
	for _, g := range gates {
		all = append(all, report.Case{Name: g.Name(), Passed: g.Passed, Missed: g.Missed})
	}
	return all
}

// summaryTable returns the table of evaluations for GitHub Actions.
func summaryTable(results []eval.Evaluation) report.Table {
	number := func(x *float64) string {
		if x == nil {
			return ""
		}
		return fmt.Sprintf("%.4f", *x)
	}
	t := report.Table{Head: []string{"prompt", "rows", "loss", "accuracy", "macro-F1", "base alone"}}
	for _, r := range results {
		alone := ""
		if r.Baseline != nil {
			if alone = number(r.Baseline.Accuracy); alone == "" {
				alone = number(&r.Baseline.Loss)
			}
		}
		t.Rows = append(t.Rows, []string{
			filepath.Base(r.Prompt), fmt.Sprintf("%s (%d)", filepath.Base(r.Data), r.Rows),
			fmt.Sprintf("%.4f", r.Loss), number(r.Accuracy), number(r.MacroF1), alone,
		})
	}
	return t
}

// sample is a row's line in --samples.
type sample struct {
	Prompt        string             `json:"prompt,omitempty"`
	File          string             `json:"file"`
	Line          int                `json:"line"`
	Input         string             `json:"input"`
	Label         string             `json:"label,omitempty"`
	Predicted     string             `json:"predicted,omitempty"`
	Right         *bool              `json:"right,omitempty"`
	Probabilities map[string]float64 `json:"probabilities,omitempty"`
	Loss          report.Number      `json:"loss"` // −log p of the target, summed over its tokens
}

// writeSamples writes a line for each row of an evaluation.
func writeSamples(w io.Writer, j evalJob, r eval.Evaluation) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i, row := range j.set.Rows {
		x := sample{
			Prompt: j.path, File: j.set.Path, Line: row.Line, Input: row.Text,
			Loss: report.Number(r.Losses[i]),
		}
		if len(j.choices) > 0 {
			right := r.Predicted[i] == row.Label
			x.Label, x.Predicted, x.Right = j.choices[row.Label].Name, j.choices[r.Predicted[i]].Name, &right
			x.Probabilities = map[string]float64{}
			for l, p := range r.Probabilities[i] {
				x.Probabilities[j.choices[l].Name] = p
			}
		}
		enc.Encode(x)
	}
}
