package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Evaluation is a result, what was measured, and what it is compared with.
type Evaluation struct {
	Prompt string `json:"prompt,omitempty"`
	Data   string `json:"data"`
	*Result
	ExactMatch *float64 `json:"exact_match,omitempty"` // share of rows whose target is generated
	Baseline   *Result  `json:"baseline,omitempty"`    // the base without a prompt
	// AsWords is the base after the text that the prompt was initialised from.
	AsWords *Result `json:"as_words,omitempty"`
}

// Read returns the evaluations in a stream of JSON documents, one or more.
func Read(r io.Reader) ([]Evaluation, error) {
	var all []Evaluation
	for dec := json.NewDecoder(r); ; {
		var e Evaluation
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil || e.Result == nil {
			return nil, fmt.Errorf("it is not the JSON of an evaluation (%v)", err)
		}
		all = append(all, e)
	}
	if all == nil {
		return nil, errors.New("it has no evaluation")
	}
	return all, nil
}

// metrics are what a gate can ask for, in the order of messages.
var metrics = []struct {
	name  string
	value func(e Evaluation) *float64
	lower bool // lower is better
}{
	{"accuracy", func(e Evaluation) *float64 { return e.Accuracy }, false},
	{"macro_f1", func(e Evaluation) *float64 { return e.MacroF1 }, false},
	{"mcc", func(e Evaluation) *float64 { return e.MCC }, false},
	{"calibration_error", func(e Evaluation) *float64 { return e.CalibrationError }, true},
	{MetricExactMatch, func(e Evaluation) *float64 { return e.ExactMatch }, false},
	{"loss", func(e Evaluation) *float64 { return &e.Loss }, true},
	{"perplexity", func(e Evaluation) *float64 { return &e.Perplexity }, true},
}

// MetricExactMatch is the metric that is measured only if it is asked for.
const MetricExactMatch = "exact_match"

// Metrics returns the names of the metrics that a gate can ask for.
func Metrics() []string {
	var names []string
	for _, m := range metrics {
		names = append(names, m.name)
	}
	return names
}

// ErrGate is wrapped by the error of a missed gate.
var ErrGate = errors.New("the gate")

// Gate is what a metric must reach.
type Gate struct {
	Option string // the option that asks for it, for messages
	Metric string
	Limit  float64
	Over   bool         // a metric above the limit misses, not one below
	Before []Evaluation // if not nil, Limit is how much worse the metric may be than in these earlier results

	Passed []string // what Check measured, in words
	Missed []string
}

// ParseGate returns the gate that text describes as METRIC=NUMBER.
func ParseGate(option, text string) (Gate, error) {
	metric, value, _ := strings.Cut(text, "=")
	limit, err := strconv.ParseFloat(value, 64)
	if err != nil || !slices.Contains(Metrics(), metric) {
		return Gate{}, fmt.Errorf("%s %q: want METRIC=NUMBER, as in accuracy=0.9, of %s",
			option, text, strings.Join(Metrics(), ", "))
	}
	return Gate{Option: option, Metric: metric, Limit: limit}, nil
}

// Name returns the gate as it was asked for.
func (g *Gate) Name() string { return fmt.Sprintf("%s %s=%g", g.Option, g.Metric, g.Limit) }

// Check measures evaluation number n, from 0, and notes the outcome. The error of a missed gate wraps
// ErrGate; any other says that the gate does not apply.
func (g *Gate) Check(e Evaluation, n int) error {
	value, lower := e.metric(g.Metric)
	if value == nil {
		return fmt.Errorf("%s %s: %s has no labels, so there is no %s",
			g.Option, g.Metric, e.Data, g.Metric)
	}
	measured := fmt.Sprintf("%s is %.4f on %s", g.Metric, *value, e.Data)
	var err error
	switch {
	case g.Before != nil:
		if n >= len(g.Before) {
			return fmt.Errorf("the earlier evaluation has %d results, this is number %d",
				len(g.Before), n+1)
		}
		before, _ := g.Before[n].metric(g.Metric)
		if before == nil {
			return fmt.Errorf("the earlier evaluation has no %s", g.Metric)
		}
		drop := *before - *value
		if lower {
			drop = -drop
		}
		if !(drop <= g.Limit) {
			err = fmt.Errorf("missed %w: %s, it was %.4f, %s allows %g",
				ErrGate, measured, *before, g.Option, g.Limit)
		}
	case g.Over && !(*value <= g.Limit):
		err = fmt.Errorf("missed %w: %s, %s asks for at most %g", ErrGate, measured, g.Option, g.Limit)
	case !g.Over && !(*value >= g.Limit):
		err = fmt.Errorf("missed %w: %s, %s asks for at least %g", ErrGate, measured, g.Option, g.Limit)
	}
	if err != nil {
		g.Missed = append(g.Missed, err.Error())
	} else {
		g.Passed = append(g.Passed, measured)
	}
	return err
}

// metric returns a metric of an evaluation, nil if it was not measured, and whether lower is better.
func (e Evaluation) metric(name string) (value *float64, lower bool) {
	for _, m := range metrics {
		if m.name == name {
			return m.value(e), m.lower
		}
	}
	return nil, false
}
