package report_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ptune/internal/report"
)

// manyLabels is a run of n labels: label 0 has a third of its rows predicted as label 1.
func manyLabels(n int) report.Run {
	r := report.Run{Name: "run", Set: "valid.csv", Log: &report.Log{Steps: []report.Step{{Step: 1, Of: 1}}}}
	for i := range n {
		r.Labels = append(r.Labels, fmt.Sprintf("label <%d>", i))
		row := make([]int, n)
		row[i], row[(i+1)%n] = 10, i%3
		r.Confusion = append(r.Confusion, row)
	}
	r.Confusion[0][1] = 5
	r.Facts = r.Log.Facts()
	return r
}

func TestManyLabelsAreAHeatMapAndTheWorstConfusions(t *testing.T) {
	for _, n := range []int{2, 12, 13, 77, 500} {
		var page bytes.Buffer
		r := manyLabels(n)
		if err := report.HTML(&page, report.Page{Runs: []report.Run{r}}); err != nil {
			t.Fatal(err)
		}
		table := strings.Contains(page.String(), `<table class="confusion">`)
		heat := strings.Contains(page.String(), `<svg class="heat"`)
		if table != (n <= 12) || heat != (n > 12) {
			t.Errorf("%d labels: table %v, heat map %v", n, table, heat)
		}
		if !heat {
			continue
		}
		// The diagonal, 51 rows with one or two mistakes, and label 0's.
		if got := strings.Count(page.String(), "<title>label &lt;"); n == 77 && got != 129 {
			t.Errorf("%d labels: %d squares", n, got)
		}
		if want := "<title>label &lt;0&gt; → label &lt;1&gt;: 5</title>"; !strings.Contains(page.String(), want) {
			t.Errorf("%d labels: no %s", n, want)
		}
		if got := r.Confusions()[:2]; !slices.Equal(got, []report.Confused{
			{"label <0>", "label <1>", 5, 15}, {"label <2>", "label <3>", 2, 12},
		}) {
			t.Errorf("%d labels: the worst are %v", n, got)
		}
		var width, height int
		_, size, _ := strings.Cut(page.String(), `<svg class="heat" viewBox="0 0 `)
		if fmt.Sscanf(size, "%d %d", &width, &height); width > 940 || height > 940 || width < 300 {
			t.Errorf("%d labels: the heat map is %d × %d", n, width, height)
		}
	}
}
