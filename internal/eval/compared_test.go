package eval_test

import (
	"testing"

	"ptune/internal/eval"
)

func TestAComparisonWithOtherRowsIsNoted(t *testing.T) {
	of := func(data string, rows int) eval.Evaluation {
		return eval.Evaluation{Data: data, Result: &eval.Result{Rows: rows}}
	}
	for _, c := range []struct {
		before, now eval.Evaluation
		want        string
	}{
		{of("a/test.jsonl", 9), of("/b/test.jsonl", 9), ""},
		{of("valid.jsonl", 9), of("test.jsonl", 9),
			"--max-drop compares test.jsonl (9 rows) with an earlier evaluation of valid.jsonl (9 rows)"},
		{of("test.jsonl", 8), of("test.jsonl", 9),
			"--max-drop compares test.jsonl (9 rows) with an earlier evaluation of test.jsonl (8 rows)"},
	} {
		gates := []eval.Gate{{Option: "--fail-under"}, {Option: "--max-drop", Before: []eval.Evaluation{c.before}}}
		if got := eval.OtherRows(gates, c.now, 0); got != c.want {
			t.Errorf("note is %q, want %q", got, c.want)
		}
		if got := eval.OtherRows(gates, c.now, 1); got != "" {
			t.Errorf("an evaluation without an earlier one: note is %q, want none", got)
		}
	}
}
