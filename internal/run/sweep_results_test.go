package run

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/config"
	"ptune/internal/report"
)

func TestARunThatDivergedAtOnceIsNeverTheBestOfASweep(t *testing.T) {
	dir := t.TempDir()
	axis := config.Axis{Key: "train.learning_rate"}
	s := &Sweep{Sweep: &config.Sweep{Dir: dir}}
	for i, loss := range []float64{math.NaN(), 2, math.Inf(1), 1, math.NaN()} {
		rate := string(rune('1' + i))
		path := filepath.Join(dir, rate+".st")
		if err := os.WriteFile(path, []byte(rate), 0o644); err != nil {
			t.Fatal(err)
		}
		axis.Values = append(axis.Values, rate)
		s.Runs = append(s.Runs, &SweepRun{Settings: map[string]string{axis.Key: rate}, Prompt: path,
			Loss: report.Number(loss)})
	}
	s.Grid = []config.Axis{axis}
	r, err := s.Results(0)
	if err != nil {
		t.Fatal(err)
	}
	best, err := os.ReadFile(r.BestPath)
	if err != nil || string(best) != "4" || r.Best != s.Runs[3] {
		t.Errorf("best.st is that of run %q (%v), want that of run 4, whose loss is 1", best, err)
	}
	var rates []string
	for _, row := range r.Table.Rows {
		rates = append(rates, row[0])
	}
	if got := strings.Join(rates[:3], " "); got != "4 2 3" {
		t.Errorf("the table begins with the runs %s, want 4 2 3: losses of 1, 2 and +Inf, then NaN", got)
	}
}
