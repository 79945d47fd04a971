package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"ptune/internal/base"
	"ptune/internal/eval"
	"ptune/internal/failure"
	"ptune/internal/report"
)

// Collected is a result that was found in a folder.
type Collected struct {
	Dir string `json:"dir"`
	Result
}

// Collect returns the results in folders and their subfolders, in the order of the folders and of their
// names. It returns the mistakes of all of them. A folder without results is one.
func Collect(dirs []string) ([]Collected, error) {
	var all []Collected
	var errs []error
	seen := map[string]bool{}
	for _, dir := range dirs {
		n := 0
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != resultFile {
				return err
			}
			n++
			folder := filepath.Dir(path)
			if abs, err := filepath.Abs(folder); err == nil {
				if seen[abs] {
					return nil
				}
				seen[abs] = true
			}
			r, err := ReadResult(folder)
			if err != nil {
				errs = append(errs, err)
				return nil
			}
			c := Collected{Dir: folder, Result: *r}
			c.Prompt = base.PathAt(path, c.Prompt)
			all = append(all, c)
			return nil
		})
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("collect results: %w", err))
		case n == 0:
			errs = append(errs, failure.Hint(fmt.Errorf("%s and its subfolders have no result.json", dir),
				"train, sweep and compare write it beside a finished prompt's events, in output.dir"))
		}
	}
	return all, failure.Usage(errors.Join(errs...))
}

// CollectedTable returns the table of results: a column for each setting that differs, then what the
// training gave.
func CollectedTable(results []Collected) report.Table {
	identities := make([]map[string]string, len(results))
	names := map[string]bool{}
	for i, r := range results {
		id := map[string]string{"model": r.Model, "method": r.Method}
		for name, value := range r.Identity {
			if !strings.ContainsAny(name, " '") { // of hashes the table shows nothing
				id[name] = value
			}
		}
		identities[i] = id
		for name := range id {
			names[name] = true
		}
	}
	var axes []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if slices.ContainsFunc(identities, func(id map[string]string) bool { return id[name] != identities[0][name] }) {
			axes = append(axes, name)
		}
	}
	t := report.Table{Head: slices.Concat([]string{"prompt"}, axes,
		[]string{"steps", "best step", "stop", "loss", "accuracy", "macro-F1", "exact match", "seconds"})}
	for i, r := range results {
		row := []string{r.Prompt}
		for _, name := range axes {
			row = append(row, oneLine(identities[i][name]))
		}
		row = append(row, fmt.Sprint(r.Steps), fmt.Sprint(r.BestStep), r.StopReason)
		for _, value := range []func(report.Scores) *float64{
			func(s report.Scores) *float64 {
				if x := float64(s.Loss); !math.IsNaN(x) {
					return &x
				}
				return nil
			},
			func(s report.Scores) *float64 { return s.Accuracy },
			func(s report.Scores) *float64 { return s.MacroF1 },
			func(s report.Scores) *float64 { return s.ExactMatch },
		} {
			row = append(row, meanScore(r.Valid, value))
		}
		t.Rows = append(t.Rows, append(row, fmt.Sprintf("%.1f", r.Seconds)))
	}
	return t
}

// meanScore returns the mean of a metric over the sets that have it, or "".
func meanScore(valid map[string]report.Scores, value func(report.Scores) *float64) string {
	sum, n := 0.0, 0
	for _, set := range slices.Sorted(maps.Keys(valid)) {
		if x := value(valid[set]); x != nil {
			sum, n = sum+*x, n+1
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.4f", sum/float64(n))
}

// oneLine returns a value as a cell of a table.
func oneLine(value string) string {
	if strings.ContainsAny(value, "\n\t") {
		text, err := json.Marshal(value)
		if err == nil {
			return string(text)
		}
	}
	return value
}

// CheckCollected checks gates on every validation set of every result. The error names each that misses a
// gate, and each without validation, of which nothing is known.
func CheckCollected(gates []eval.Gate, results []Collected) error {
	var errs []error
	for n, r := range results {
		if len(r.Valid) == 0 && len(gates) > 0 {
			errs = append(errs, fmt.Errorf("missed %w: %s has no validation", eval.ErrGate, r.Prompt))
		}
		for _, set := range slices.Sorted(maps.Keys(r.Valid)) {
			s := r.Valid[set]
			loss := float64(s.Loss)
			e := eval.Evaluation{
				Prompt: r.Prompt, Data: r.Prompt, ExactMatch: s.ExactMatch,
				Result: &eval.Result{Loss: loss, Perplexity: math.Exp(loss), Accuracy: s.Accuracy, MacroF1: s.MacroF1},
			}
			if len(r.Valid) > 1 {
				e.Data += " (" + set + ")"
			}
			errs = append(errs, eval.CheckGates(gates, e, n))
		}
	}
	return errors.Join(errs...)
}
