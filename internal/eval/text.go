package eval

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes the evaluation for people: a line for each metric, with the base without the prompt and
// the prompt's text as plain words beside it, and a table of the labels.
func (e Evaluation) Text(to io.Writer) error {
	var t strings.Builder
	name := e.Prompt
	if name == "" {
		name = "base"
	}
	fmt.Fprintf(&t, "%s on %s (%d rows)\n", name, e.Data, e.Rows)
	line := func(metric string, value func(*Result) *float64) {
		if value(e.Result) == nil {
			return
		}
		fmt.Fprintf(&t, "  %-11s %8.4f", metric, *value(e.Result))
		if e.Baseline != nil {
			fmt.Fprintf(&t, "   without the prompt %8.4f", *value(e.Baseline))
		}
		if e.AsWords != nil {
			fmt.Fprintf(&t, "   as plain words %8.4f", *value(e.AsWords))
		}
		if i, ok := e.Intervals[strings.ReplaceAll(strings.ToLower(metric), "-", "_")]; ok {
			fmt.Fprintf(&t, "   [%.4f–%.4f]", i[0], i[1])
		}
		t.WriteByte('\n')
	}
	line("loss", func(r *Result) *float64 { return &r.Loss })
	line("perplexity", func(r *Result) *float64 { return &r.Perplexity })
	for i, m := range e.Members {
		fmt.Fprintf(&t, "  member %-4d %8.4f   loss %8.4f\n", i+1, *m.Accuracy, m.Loss)
	}
	line("accuracy", func(r *Result) *float64 { return r.Accuracy })
	line("macro-F1", func(r *Result) *float64 { return r.MacroF1 })
	if e.ExactMatch != nil {
		fmt.Fprintf(&t, "  %-11s %8.4f\n", "exact match", *e.ExactMatch)
	}
	if e.MCC != nil {
		fmt.Fprintf(&t, "  %-11s %8.4f\n", "MCC", *e.MCC)
		if e.CalibrationError != nil {
			fmt.Fprintf(&t, "  %-11s %8.4f\n", "calibration", *e.CalibrationError)
		} else {
			fmt.Fprintf(&t, "  %-11s not measured\n", "calibration")
		}
	}
	if len(e.Classes) > 0 {
		w := tabwriter.NewWriter(&t, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  label\tprecision\trecall\tF1\trows")
		for _, c := range e.Classes {
			fmt.Fprintf(w, "  %s\t%.4f\t%.4f\t%.4f\t%d\n", c.Label, c.Precision, c.Recall, c.F1, c.Rows)
		}
		w.Flush()
	}
	_, err := io.WriteString(to, t.String())
	return err
}
