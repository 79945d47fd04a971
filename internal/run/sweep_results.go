package run

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ptune/internal/config"
	"ptune/internal/files"
	"ptune/internal/report"
	"ptune/internal/train"
)

// seedKey is the axis that is not a choice: runs that differ only in it share a row of the table.
const seedKey = "train.seed"

// The files of a sweep's results, in its folder.
const (
	bestFile  = "best.st"
	jsonFile  = "results.json"
	tableFile = "table.md"
	chartFile = "sweep.svg"
)

// SweepResults is what a sweep found.
type SweepResults struct {
	Best     *SweepRun
	BestPath string // a copy of its prompt
	Table    report.Table
	JSON     []byte
}

// Results writes table.md, results.json, sweep.svg and best.st to the sweep's folder and returns what
// they contain. took is the time since the sweep was started.
func (s *Sweep) Results(took time.Duration) (*SweepResults, error) {
	axes := slices.DeleteFunc(slices.Clone(s.Grid), func(a config.Axis) bool { return a.Key == seedKey })
	choices := s.choices(axes)
	r := &SweepResults{
		Best: slices.MinFunc(s.Runs, func(a, b *SweepRun) int {
			return compareLoss(float64(a.Loss), float64(b.Loss))
		}),
		BestPath: filepath.Join(s.Dir, bestFile),
	}
	for _, a := range axes {
		r.Table.Head = append(r.Table.Head, a.Key)
	}
	r.Table.Head = append(r.Table.Head, "seeds", "validation loss", "accuracy", "steps")
	for _, c := range choices {
		r.Table.Rows = append(r.Table.Rows, c.cells())
	}
	best, err := os.ReadFile(r.Best.Prompt)
	if err != nil {
		return nil, fmt.Errorf("copy the best prompt: %w", err)
	}
	r.JSON, err = json.Marshal(struct {
		Best     string        `json:"best"`
		Settings any           `json:"settings"`
		Grid     []config.Axis `json:"grid"`
		Runs     []*SweepRun   `json:"runs"`
		Seconds  float64       `json:"seconds"`
	}{r.BestPath, r.Best.Settings, s.Grid, s.Runs, took.Seconds()})
	if err != nil {
		return nil, err
	}
	r.JSON = append(r.JSON, '\n')
	var table strings.Builder
	if err := r.Table.Markdown(&table); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{bestFile, best}, {jsonFile, r.JSON}, {tableFile, []byte(table.String())},
		{chartFile, []byte(sweepChart(axes, choices).SVG())},
	} {
		if err := files.WriteBytes(filepath.Join(s.Dir, f.name), f.data); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// choice is the runs of one choice of settings, which differ in their seeds.
type choice struct {
	values                    []string // of the axes
	runs                      []*SweepRun
	loss, low, high           float64
	accuracy                  float64 // NaN without labels
	accuracyLow, accuracyHigh float64
	halved                    int // runs that halving ended
}

// choices returns the choices of values on the axes, the best first.
func (s *Sweep) choices(axes []config.Axis) []*choice {
	var choices []*choice
	find := map[string]*choice{}
	inf := math.Inf(1)
	for _, r := range s.Runs {
		var values []string
		for _, a := range axes {
			values = append(values, r.Settings[a.Key])
		}
		key := strings.Join(values, "\x00")
		c := find[key]
		if c == nil {
			c = &choice{values: values, low: inf, high: -inf, accuracyLow: inf, accuracyHigh: -inf}
			find[key], choices = c, append(choices, c)
		}
		c.runs = append(c.runs, r)
	}
	for _, c := range choices {
		c.sum()
	}
	slices.SortStableFunc(choices, func(a, b *choice) int { return compareLoss(a.loss, b.loss) })
	return choices
}

// compareLoss orders losses, the lowest first. A NaN is last: it is the loss of a run that diverged
// before its first evaluation, as result.json keeps it.
func compareLoss(a, b float64) int {
	if math.IsNaN(a) || math.IsNaN(b) {
		return -cmp.Compare(a, b) // cmp puts NaN first
	}
	return cmp.Compare(a, b)
}

// sum takes means and extremes over the runs.
func (c *choice) sum() {
	n := float64(len(c.runs))
	for _, r := range c.runs {
		loss, accuracy := float64(r.Loss), math.NaN()
		if r.Accuracy != nil {
			accuracy = *r.Accuracy
		}
		c.loss += loss / n
		c.low, c.high = min(c.low, loss), max(c.high, loss)
		c.accuracy += accuracy / n
		c.accuracyLow, c.accuracyHigh = min(c.accuracyLow, accuracy), max(c.accuracyHigh, accuracy)
		if r.Stop == train.StopHalved {
			c.halved++
		}
	}
}

// cells returns the choice's row of the table.
func (c *choice) cells() []string {
	spread := func(mean, low, high float64) string {
		if len(c.runs) == 1 {
			return fmt.Sprintf("%.4f", mean)
		}
		return fmt.Sprintf("%.4f [%.4f–%.4f]", mean, low, high)
	}
	accuracy := ""
	if !math.IsNaN(c.accuracy) {
		accuracy = spread(c.accuracy, c.accuracyLow, c.accuracyHigh)
	}
	steps := fmt.Sprint(c.runs[0].Steps)
	if c.halved > 0 {
		steps = fmt.Sprintf("%d halved", c.halved)
	}
	return append(slices.Clone(c.values),
		fmt.Sprint(len(c.runs)), spread(c.loss, c.low, c.high), accuracy, steps)
}

// sweepChart returns a chart of the loss over the first axis that has several values, with a line for
// each choice on the other axes.
func sweepChart(axes []config.Axis, choices []*choice) report.Chart {
	c := report.Chart{Title: "validation loss of each run", Y: "loss"}
	at := slices.IndexFunc(axes, func(a config.Axis) bool { return len(a.Values) > 1 })
	at = max(0, at)
	if len(axes) == 0 { // only seeds vary
		c.X, c.Categories = "all seeds", []string{""}
	} else {
		c.X, c.Categories = axes[at].Key, axes[at].Values
		if !slices.ContainsFunc(axes[at].Values, notPositive) {
			c.Categories = nil
			c.LogX = strings.HasSuffix(axes[at].Key, "rate")
		}
	}
	lines := map[string]int{} // index in c.Series
	for _, r := range choices {
		var name []string
		p := report.Point{Y: r.loss, Low: r.low, High: r.high}
		for i, v := range r.values {
			switch {
			case i != at:
				name = append(name, shortKey(axes[i].Key)+" "+v)
			case c.Categories != nil:
				p.X = float64(slices.Index(c.Categories, v))
			default:
				p.X, _ = strconv.ParseFloat(v, 64)
			}
		}
		key := strings.Join(name, ", ")
		if _, ok := lines[key]; !ok {
			lines[key] = len(c.Series)
			c.Series = append(c.Series, report.Series{Name: key})
		}
		s := &c.Series[lines[key]]
		s.Points = append(s.Points, p)
	}
	for _, s := range c.Series {
		slices.SortFunc(s.Points, func(a, b report.Point) int { return cmp.Compare(a.X, b.X) })
	}
	slices.SortFunc(c.Series, func(a, b report.Series) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// notPositive reports whether v is something else than a positive number.
func notPositive(v string) bool {
	x, err := strconv.ParseFloat(v, 64)
	return err != nil || x <= 0
}
