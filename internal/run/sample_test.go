package run

import (
	"slices"
	"testing"

	"ptune/internal/data"
)

func TestSampledRowsHaveEachLabelsShare(t *testing.T) {
	rows := func(seed uint64) *Rows {
		set := &data.Set{Name: "valid", Path: "valid.csv"}
		for i := range 200 { // 3 of 4 rows have label 0
			set.Rows = append(set.Rows, data.Row{Line: i + 1, Label: max(0, i%4-2)})
		}
		r := &Rows{Valid: []*data.Set{set}}
		r.sample(40, seed)
		return r
	}
	lines := func(r *Rows) (all []int) {
		for _, row := range r.Valid[0].Rows {
			all = append(all, row.Line)
		}
		return all
	}
	r := rows(1)
	if n, _ := count(r.Valid[0], func(row data.Row) bool { return row.Label == 1 }); n != 10 {
		t.Errorf("%d of 40 rows have the label of a quarter of the rows, want 10", n)
	}
	got := lines(r)
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 40 || len(r.Sampled) != 1 {
		t.Errorf("chosen lines are %v, said %q; want 40 lines in order and a sentence", got, r.Sampled)
	}
	if !slices.Equal(got, lines(rows(1))) || slices.Equal(got, lines(rows(2))) {
		t.Error("the choice does not depend on the seed alone")
	}
	r.sample(0, 1)
	if len(r.Valid[0].Rows) != 40 || len(r.Sampled) != 1 {
		t.Error("eval_rows: 0 does not leave all rows")
	}
}
