package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"ptune/internal/failure"
	"ptune/internal/report"
)

// gateFlags are what an evaluation must reach.
type gateFlags struct {
	failUnder, failOver, maxDrop []string
	compare                      string
}

func (o *gateFlags) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.failUnder, "fail-under", nil, "exit with 3 if a metric is lower, as in accuracy=0.9 ("+strings.Join(metricNames(), ", ")+"; repeatable)")
	f.StringArrayVar(&o.failOver, "fail-over", nil, "exit with 3 if a metric is higher, as in loss=0.5 (repeatable)")
	f.StringVar(&o.compare, "compare", "", "the JSON of an earlier evaluation, for --max-drop")
	f.StringArrayVar(&o.maxDrop, "max-drop", nil, "exit with 3 if a metric is that much worse than in --compare, as in accuracy=0.02 (repeatable)")
}

// metrics are what an evaluation can be asked for, in the order of messages.
var metrics = []struct {
	name  string
	value func(r evalResult) *float64
	lower bool // is better
}{
	{"accuracy", func(r evalResult) *float64 { return r.Accuracy }, false},
	{"macro_f1", func(r evalResult) *float64 { return r.MacroF1 }, false},
	{"mcc", func(r evalResult) *float64 { return r.MCC }, false},
	{"calibration_error", func(r evalResult) *float64 { return r.CalibrationError }, true},
	{"exact_match", func(r evalResult) *float64 { return r.ExactMatch }, false},
	{"loss", func(r evalResult) *float64 { return &r.Loss }, true},
	{"perplexity", func(r evalResult) *float64 { return &r.Perplexity }, true},
}

func metricNames() []string {
	var names []string
	for _, m := range metrics {
		names = append(names, m.name)
	}
	return names
}

// gate is what one metric must reach.
type gate struct {
	flag   string
	metric string
	limit  float64
	over   bool         // more than the limit is wrong, not less
	before []evalResult // limit is the most it may be worse than there

	passed []string // what has been measured
	missed []string
}

func (o gateFlags) gates() ([]gate, error) {
	var gates []gate
	for _, f := range []struct {
		flag string
		list []string
		over bool
	}{{"--fail-under", o.failUnder, false}, {"--fail-over", o.failOver, true}, {"--max-drop", o.maxDrop, false}} {
		for _, s := range f.list {
			metric, value, _ := strings.Cut(s, "=")
			limit, err := strconv.ParseFloat(value, 64)
			if err != nil || !known(metric) {
				return nil, fmt.Errorf("%s %q: want METRIC=NUMBER, as in accuracy=0.9, of %s", f.flag, s, strings.Join(metricNames(), ", "))
			}
			gates = append(gates, gate{flag: f.flag, metric: metric, limit: limit, over: f.over})
		}
	}
	if (o.compare == "") != (len(o.maxDrop) == 0) {
		return nil, fmt.Errorf("--compare and --max-drop belong together: what to compare with, and how much worse a metric may be")
	}
	if o.compare == "" {
		return gates, nil
	}
	before, err := readResults(o.compare)
	if err != nil {
		return nil, err
	}
	for i := range gates {
		if gates[i].flag == "--max-drop" {
			gates[i].before = before
		}
	}
	return gates, nil
}

func known(metric string) bool {
	for _, m := range metrics {
		if m.name == metric {
			return true
		}
	}
	return false
}

// readResults reads what eval --json has printed.
func readResults(path string) ([]evalResult, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--compare: %w", err)
	}
	var all []evalResult
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var r evalResult
		if err := dec.Decode(&r); err == io.EOF {
			break
		} else if err != nil || r.Result == nil {
			return nil, fmt.Errorf("--compare %s: it is not what eval --json prints (%v)", path, err)
		}
		all = append(all, r)
	}
	if all == nil {
		return nil, fmt.Errorf("--compare %s: there is no result in it", path)
	}
	return all, nil
}

// check measures result number n against the gate.
func (g *gate) check(r evalResult, n int) error {
	value, lower := metricOf(r, g.metric)
	if value == nil {
		return failure.Usage(fmt.Errorf("%s %s: %s has no labels, so there is no %s", g.flag, g.metric, r.Data, g.metric))
	}
	var err error
	if g.before != nil {
		if n >= len(g.before) {
			return failure.Usage(fmt.Errorf("--compare: it has %d results, this is the %dth", len(g.before), n+1))
		}
		was, _ := metricOf(g.before[n], g.metric)
		if was == nil {
			return failure.Usage(fmt.Errorf("--compare: it has no %s", g.metric))
		}
		drop := *was - *value
		if lower {
			drop = -drop
		}
		if !(drop <= g.limit) {
			err = fmt.Errorf("below %w: %s is %.4f on %s, it was %.4f, --max-drop allows %g", errGate, g.metric, *value, r.Data, *was, g.limit)
		}
	} else if g.over && !(*value <= g.limit) || !g.over && !(*value >= g.limit) {
		side := map[bool]string{true: "above", false: "below"}[g.over]
		err = fmt.Errorf("%s %w: %s is %.4f on %s, %s asks for %g", side, errGate, g.metric, *value, r.Data, g.flag, g.limit)
	}
	told := fmt.Sprintf("%s is %.4f on %s", g.metric, *value, r.Data)
	if err != nil {
		g.missed = append(g.missed, err.Error())
	} else {
		g.passed = append(g.passed, told)
	}
	return err
}

func metricOf(r evalResult, name string) (value *float64, lower bool) {
	for _, m := range metrics {
		if m.name == name {
			return m.value(r), m.lower
		}
	}
	return nil, false
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

func writeSamples(w io.Writer, j evalJob, r evalResult) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i, row := range j.set.Rows {
		x := sample{Prompt: j.path, File: j.set.Path, Line: row.Line, Input: row.Text, Loss: report.Number(r.Losses[i])}
		if len(j.choices) > 0 {
			right := r.Predicted[i] == row.Label
			x.Label, x.Predicted, x.Right, x.Probabilities = j.choices[row.Label].Name, j.choices[r.Predicted[i]].Name, &right, map[string]float64{}
			for l, p := range r.Probabilities[i] {
				x.Probabilities[j.choices[l].Name] = p
			}
		}
		enc.Encode(x)
	}
}

// junit is a report of the gates: one test case each.
func junit(gates []gate) []byte {
	type failure struct {
		Message string `xml:"message,attr"`
	}
	type testCase struct {
		Class   string    `xml:"classname,attr"`
		Name    string    `xml:"name,attr"`
		Failure []failure `xml:"failure"`
		Out     string    `xml:"system-out,omitempty"`
	}
	suite := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testCase `xml:"testcase"`
	}{Name: "ptune eval", Tests: len(gates)}
	for _, g := range gates {
		c := testCase{Class: "ptune.eval", Name: fmt.Sprintf("%s %s=%g", g.flag, g.metric, g.limit), Out: strings.Join(g.passed, "\n")}
		for _, m := range g.missed {
			c.Failure = append(c.Failure, failure{m})
		}
		if len(g.missed) > 0 {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, c)
	}
	data, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		panic(err) // plain strings
	}
	return append([]byte(xml.Header), append(data, '\n')...)
}

// writeSummary appends what was measured to the file where GitHub Actions shows Markdown.
func writeSummary(path string, results []evalResult, gates []gate) error {
	var b strings.Builder
	b.WriteString("### ptune eval\n\n| prompt | rows | loss | accuracy | macro-F1 | base alone |\n|---|---|---|---|---|---|\n")
	number := func(x *float64) string {
		if x == nil {
			return ""
		}
		return fmt.Sprintf("%.4f", *x)
	}
	for _, r := range results {
		alone := ""
		if r.Baseline != nil {
			if alone = number(r.Baseline.Accuracy); alone == "" {
				alone = number(&r.Baseline.Loss)
			}
		}
		fmt.Fprintf(&b, "| %s | %s (%d) | %.4f | %s | %s | %s |\n", filepath.Base(r.Prompt), filepath.Base(r.Data), r.Rows, r.Loss, number(r.Accuracy), number(r.MacroF1), alone)
	}
	for _, g := range gates {
		for _, m := range g.passed {
			fmt.Fprintf(&b, "\n- passed: %s (%s %g)", m, g.flag, g.limit)
		}
		for _, m := range g.missed {
			fmt.Fprintf(&b, "\n- **missed**: %s", m)
		}
	}
	b.WriteString("\n\n")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	_, err = f.WriteString(b.String())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
