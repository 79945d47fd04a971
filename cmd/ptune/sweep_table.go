package main

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

// seedKey is the axis that is no choice: its runs are told together.
const seedKey = "train.seed"

// sweepRow is the runs of one choice of settings, which differ by their seed.
type sweepRow struct {
	values          []string // of the axes but the seed
	runs            []*sweepRun
	loss, low, high float64
	accuracy        float64 // NaN where there is none
	accLow, accHigh float64
	halved          int
}

// sweepRows are the choices, the best first.
func sweepRows(axes []config.Axis, runs []*sweepRun) []*sweepRow {
	var rows []*sweepRow
	find := map[string]*sweepRow{}
	for _, r := range runs {
		var values []string
		for _, a := range axes {
			values = append(values, r.Settings[a.Key])
		}
		key := strings.Join(values, "\x00")
		row := find[key]
		if row == nil {
			row = &sweepRow{values: values, low: math.Inf(1), high: math.Inf(-1), accLow: math.Inf(1), accHigh: math.Inf(-1)}
			find[key], rows = row, append(rows, row)
		}
		row.runs = append(row.runs, r)
	}
	for _, row := range rows {
		for _, r := range row.runs {
			n := float64(len(row.runs))
			row.loss += float64(r.Loss) / n
			row.low, row.high = min(row.low, float64(r.Loss)), max(row.high, float64(r.Loss))
			acc := math.NaN()
			if r.Accuracy != nil {
				acc = *r.Accuracy
			}
			row.accuracy += acc / n
			row.accLow, row.accHigh = min(row.accLow, acc), max(row.accHigh, acc)
			if r.Stop == train.StopHalved {
				row.halved++
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b *sweepRow) int { return cmp.Compare(a.loss, b.loss) })
	return rows
}

// cells are a row as a table shows it.
func (r *sweepRow) cells() []string {
	spread := func(mean, low, high float64) string {
		if len(r.runs) == 1 {
			return fmt.Sprintf("%.4f", mean)
		}
		return fmt.Sprintf("%.4f [%.4f–%.4f]", mean, low, high)
	}
	accuracy := ""
	if !math.IsNaN(r.accuracy) {
		accuracy = spread(r.accuracy, r.accLow, r.accHigh)
	}
	stop := fmt.Sprint(r.runs[0].Steps)
	if r.halved > 0 {
		stop = fmt.Sprintf("%d cut", r.halved)
	}
	return append(slices.Clone(r.values), fmt.Sprint(len(r.runs)), spread(r.loss, r.low, r.high), accuracy, stop)
}

// reportSweep writes the sweep's table, picture and best prompt, and prints the table.
func reportSweep(sw *config.Sweep, runs []*sweepRun, o sweepOptions, s streams, took time.Duration) error {
	axes := slices.DeleteFunc(slices.Clone(sw.Grid), func(a config.Axis) bool { return a.Key == seedKey })
	rows := sweepRows(axes, runs)
	best := slices.MinFunc(runs, func(a, b *sweepRun) int { return cmp.Compare(a.Loss, b.Loss) })
	head := []string{}
	for _, a := range axes {
		head = append(head, a.Key)
	}
	head = append(head, "seeds", "validation loss", "accuracy", "steps")
	bestPath := filepath.Join(sw.Dir, "best.st")
	data, err := os.ReadFile(best.Prompt)
	if err != nil {
		return fmt.Errorf("copy the best prompt: %w", err)
	}
	result, err := json.Marshal(struct {
		Best     string        `json:"best"`
		Settings any           `json:"settings"`
		Grid     []config.Axis `json:"grid"`
		Runs     []*sweepRun   `json:"runs"`
		Seconds  float64       `json:"seconds"`
	}{bestPath, best.Settings, sw.Grid, runs, took.Seconds()})
	if err != nil {
		return err
	}
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, r.cells())
	}
	var md strings.Builder
	if err := markdownTable(&md, head, cells); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"best.st", data}, {"results.json", append(result, '\n')}, {"table.md", []byte(md.String())}, {"sweep.svg", []byte(sweepChart(axes, rows).SVG())}} {
		if err := files.WriteBytes(filepath.Join(sw.Dir, f.name), f.data); err != nil {
			return err
		}
	}
	if o.json {
		_, err := s.out.Write(append(result, '\n'))
		return err
	}
	if err := textTable(s.out, head, cells); err != nil {
		return err
	}
	if !o.quiet {
		s.tell("the best prompt (%s) is %s; table.md, results.json and sweep.svg are beside it", best.name(), bestPath)
	}
	return nil
}

// sweepChart shows the loss over the first axis that has several values, with a line for each choice of the others.
func sweepChart(axes []config.Axis, rows []*sweepRow) report.Chart {
	c := report.Chart{Title: "validation loss of each run", Y: "loss"}
	at := slices.IndexFunc(axes, func(a config.Axis) bool { return len(a.Values) > 1 })
	if at < 0 {
		at = 0
	}
	if len(axes) == 0 { // seeds alone
		c.X, c.Categories = "all seeds", []string{""}
	} else {
		c.X, c.LogX, c.Categories = axes[at].Key, strings.HasSuffix(axes[at].Key, "rate"), axes[at].Values
		if !slices.ContainsFunc(axes[at].Values, func(v string) bool { x, err := strconv.ParseFloat(v, 64); return err != nil || x <= 0 }) {
			c.Categories = nil
		}
		c.LogX = c.LogX && c.Categories == nil
	}
	lines := map[string]int{}
	for _, r := range rows {
		var name []string
		p := report.Point{Y: r.loss, Low: r.low, High: r.high}
		for i, v := range r.values {
			switch {
			case i != at:
				name = append(name, axes[i].Key[strings.IndexByte(axes[i].Key, '.')+1:]+" "+v)
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
