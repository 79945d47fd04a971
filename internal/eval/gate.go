package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/failure"
)

// Evaluation is a result, what was measured, and what it is compared with.
type Evaluation struct {
	Prompt string `json:"prompt,omitempty"`
	Data   string `json:"data"`
	*Result
	ExactMatch *float64 `json:"exact_match,omitempty"` // share of rows whose target is generated
	Answers    []Answer `json:"-"`                     // of each row, if ExactMatch was measured
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
	name        string
	value       func(e Evaluation) *float64
	lower       bool // lower is better
	least, most float64
}{
	{"accuracy", func(e Evaluation) *float64 { return e.Accuracy }, false, 0, 1},
	{"macro_f1", func(e Evaluation) *float64 { return e.MacroF1 }, false, 0, 1},
	{"mcc", func(e Evaluation) *float64 { return e.MCC }, false, -1, 1},
	{MetricCalibration, func(e Evaluation) *float64 { return e.CalibrationError }, true, 0, 1},
	{MetricExactMatch, func(e Evaluation) *float64 { return e.ExactMatch }, false, 0, 1},
	{"loss", func(e Evaluation) *float64 { return &e.Loss }, true, 0, math.Inf(1)},
	{"perplexity", func(e Evaluation) *float64 { return &e.Perplexity }, true, 1, math.Inf(1)},
}

// The metrics that are measured only if they are asked for.
const (
	MetricExactMatch  = "exact_match"
	MetricCalibration = "calibration_error"
)

// Metrics returns the names of the metrics that a gate can ask for, of which lower or higher values are
// better.
func Metrics(lower bool) []string {
	var names []string
	for _, m := range metrics {
		if m.lower == lower {
			names = append(names, m.name)
		}
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
	Over   bool // a metric above the limit misses, not one below
	// If not nil, Limit is how much worse the metric may be than in these earlier results.
	Before []Evaluation

	Passed []string // what Check measured, in words
	Missed []string
}

// GateOptions are what evaluations must reach; each text is METRIC=NUMBER.
type GateOptions struct {
	FailUnder []string // a lower metric misses
	FailOver  []string // a higher metric misses
	MaxDrop   []string // a metric that is worse than in Compare by more than the number misses
	Compare   string   // the JSON file of an earlier evaluation
}

// Gates returns the gates, in the order of the fields.
func (o GateOptions) Gates() ([]Gate, error) {
	if (o.Compare == "") != (len(o.MaxDrop) == 0) {
		return nil, errors.New("--compare and --max-drop need each other: " +
			"an earlier evaluation, and how much worse a metric may be")
	}
	var before []Evaluation
	if o.Compare != "" {
		f, err := os.Open(o.Compare)
		if err != nil {
			return nil, fmt.Errorf("--compare: %w", err)
		}
		defer f.Close()
		if before, err = Read(f); err != nil {
			return nil, fmt.Errorf("--compare %s: %w", o.Compare, err)
		}
	}
	var gates []Gate
	var errs []error
	all := slices.Concat(Metrics(false), Metrics(true))
	parse := func(texts []string, like Gate) {
		for _, text := range texts {
			metric, value, _ := strings.Cut(text, "=")
			limit, err := strconv.ParseFloat(value, 64)
			if err != nil || !slices.Contains(all, metric) {
				errs = append(errs, fmt.Errorf("%s %q: want METRIC=NUMBER, as in accuracy=0.9, of %s",
					like.Option, text, strings.Join(all, ", ")))
				continue
			}
			g := like
			g.Metric, g.Limit = metric, limit
			errs = append(errs, g.checkLimit())
			gates = append(gates, g)
		}
	}
	parse(o.FailUnder, Gate{Option: "--fail-under"})
	parse(o.FailOver, Gate{Option: "--fail-over", Over: true})
	parse(o.MaxDrop, Gate{Option: "--max-drop", Before: before})
	return gates, errors.Join(errs...)
}

// checkLimit returns an error if the limit is outside the metric's range, so that the gate would always
// pass or never, or if the gate would miss where the metric is good.
func (g *Gate) checkLimit() error {
	for _, m := range metrics {
		if m.name == g.Metric && g.Before == nil && m.lower != g.Over {
			better, right := "higher", "--fail-under"
			if m.lower {
				better, right = "lower", "--fail-over"
			}
			return fmt.Errorf("%s: a %s %s is better; want %s %s=%g",
				g.Name(), better, g.Metric, right, g.Metric, g.Limit)
		}
		least, most, what := m.least, m.most, "is"
		if g.Before != nil {
			least, most, what = m.least-m.most, m.most-m.least, "differs by"
		}
		if m.name != g.Metric || g.Limit >= least && g.Limit <= most {
			continue
		}
		err := fmt.Errorf("%s: %s %s %g to %g", g.Name(), g.Metric, what, least, most)
		if math.IsInf(most, 1) {
			err = fmt.Errorf("%s: %s %s at least %g", g.Name(), g.Metric, what, least)
		}
		if m.most == 1 && g.Limit >= 2 && g.Limit <= 100 {
			err = fmt.Errorf("%w; %g %% is %g", err, g.Limit, g.Limit/100)
		}
		return err
	}
	return nil
}

// CheckGates checks evaluation number n, from 0, and returns the errors of Check for all gates.
func CheckGates(gates []Gate, e Evaluation, n int) error {
	var errs []error
	for i := range gates {
		errs = append(errs, gates[i].Check(e, n))
	}
	return errors.Join(errs...)
}

// Name returns the gate as it was asked for.
func (g *Gate) Name() string { return fmt.Sprintf("%s %s=%g", g.Option, g.Metric, g.Limit) }

// Check measures evaluation number n, from 0, and notes the outcome. The error of a missed gate wraps
// ErrGate; that of a gate that does not apply is a usage error.
func (g *Gate) Check(e Evaluation, n int) error {
	value, lower := e.metric(g.Metric)
	if value == nil {
		return failure.Usage(fmt.Errorf("%s %s: %s has no labels, so there is no %s",
			g.Option, g.Metric, e.Data, g.Metric))
	}
	measured := fmt.Sprintf("%s is %.4f on %s", g.Metric, *value, e.Data)
	var err error
	switch {
	case g.Before != nil:
		if n >= len(g.Before) {
			return failure.Usage(fmt.Errorf("the earlier evaluation has %d results, this is number %d",
				len(g.Before), n+1))
		}
		before, _ := g.Before[n].metric(g.Metric)
		if before == nil {
			return failure.Usage(fmt.Errorf("the earlier evaluation has no %s", g.Metric))
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
