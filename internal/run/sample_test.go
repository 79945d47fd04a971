package run

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/data"
)

func TestSampledRowsHaveEachLabelsShare(t *testing.T) {
	rows := func(seed uint64) *Rows {
		set := &data.Set{Name: "valid", Path: "valid.csv"}
		for i := range 200 { // 3 of 4 rows have label 0
			set.Rows = append(set.Rows, data.Row{Line: i + 1, Label: max(0, i%4-2)})
		}
		return (&Rows{Valid: []*data.Set{set}}).sampled(40, seed)
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
	if all := r.sampled(0, 1); len(all.Valid[0].Rows) != 40 || all.Sampled != nil {
		t.Error("eval_rows: 0 does not leave all rows")
	}
	if few := r.sampled(8, 1); len(few.Valid[0].Rows) != 8 || len(r.Valid[0].Rows) != 40 {
		t.Errorf("%d rows are left in a choice of 8, and %d in what it was made of", len(few.Valid[0].Rows),
			len(r.Valid[0].Rows))
	}
}

// The rows that the runs of a sweep are evaluated on are those of each run alone.
func TestRunsOfASweepChooseTheirRowsByTheirOwnSeeds(t *testing.T) {
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	var rows strings.Builder
	for i := range 40 {
		fmt.Fprintf(&rows, "{\"text\": \"room %d\", \"label\": \"%s\"}\n", i, []string{"good", "bad"}[i%2])
	}
	for name, text := range map[string]string{
		"rows.jsonl": rows.String(),
		"task.yaml": fmt.Sprintf(`{model: "ptune:demo", prompt: {tokens: 2, init: vocab},
  data: {train: %[1]s/rows.jsonl, valid: %[1]s/rows.jsonl, input: "{text}", target: " {label}"},
  train: {steps: 1, eval_rows: 5}, output: {prompt: %[1]s/p.st}}`, dir),
		"sweep.yaml": fmt.Sprintf("{task: %s/task.yaml, grid: {train.seed: [0, 1], train.eval_rows: [5, 7]}}", dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadSweep(filepath.Join(dir, "sweep.yaml"), "", nil)
	if err == nil {
		err = s.Open(t.Context(), b, "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Runs {
		alone, err := LoadRows(t.Context(), r.task, b)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := hashRows(r.run.Rows.Valid[0]), hashRows(alone.Valid[0]); got != want {
			t.Errorf("%s: the evaluated rows are not those of the run alone", r.Name())
		}
	}
}
