package main

import (
	"errors"
	"fmt"
	"os"
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
