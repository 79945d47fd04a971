package report

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
)

// tableLabels is the most labels whose confusion matrix is a table: one of 12 columns fits the page.
const tableLabels = 12

// ManyLabels reports whether the confusion matrix is shown as a heat map.
func (r Run) ManyLabels() bool { return len(r.Labels) > tableLabels }

// Confused is a label whose rows were predicted as another.
type Confused struct {
	Label, Predicted string
	Rows, Of         int // of the label's rows
}

// mostConfused is the most lines of Confusions.
const mostConfused = 15

// Confusions returns the pairs of labels that are confused in most rows, the most frequent first, if the
// matrix is too large to see them.
func (r Run) Confusions() []Confused {
	if !r.ManyLabels() {
		return nil
	}
	var all []Confused
	for i, row := range r.Confusion {
		sum := 0
		for _, n := range row {
			sum += n
		}
		for k, n := range row {
			if k != i && n > 0 {
				all = append(all, Confused{r.Labels[i], r.Labels[k], n, sum})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Confused) int { return cmp.Compare(b.Rows, a.Rows) })
	return all[:min(mostConfused, len(all))]
}

// heatMap returns the confusion matrix as an SVG of at most 900 pixels: a square for each pair of labels
// that occurs, the more opaque the larger its share of the row. Its title, which browsers show under the pointer, has the
// labels and the number of rows.
func (r Run) heatMap() string {
	const names, legible = 180, 10 // pixels for the labels; the least height of one
	n := len(r.Confusion)
	side := max(1.5, min(16, 720/float64(n)))
	every := max(1, int(legible/side)) // label every so many lines
	size := names + side*float64(n)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="heat" viewBox="0 0 %.0f %.0f" width="%.0f" role="img">`, size, size, size)
	b.WriteString("<title>Confusion matrix</title>")
	fmt.Fprintf(&b, `<rect class="edge" x="%d" y="%d" width="%.1f" height="%.1f"/>`,
		names, names, side*float64(n), side*float64(n))
	for i, row := range r.Confusion {
		sum := 0
		for _, n := range row {
			sum += n
		}
		at := names + side*float64(i)
		if i%every == 0 {
			label := html.EscapeString(shortLabel(r.Labels[i]))
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, names-4, at+side/2+3, label)
			fmt.Fprintf(&b, `<text transform="translate(%.1f %d) rotate(-90)">%s</text>`,
				at+side/2+3, names-4, label)
		}
		for k, count := range row {
			if count > 0 {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" opacity="%.2f">`+
					`<title>%s → %s: %d</title></rect>`, names+side*float64(k), at, side, side,
					0.15+0.85*float64(count)/float64(sum), html.EscapeString(r.Labels[i]), html.EscapeString(r.Labels[k]), count)
			}
		}
	}
	b.WriteString("</svg>")
	return b.String()
}

// shortLabel returns a label that fits beside the matrix.
func shortLabel(s string) string {
	if r := []rune(s); len(r) > 32 {
		return string(r[:31]) + "…"
	}
	return s
}
