package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is rows of cells below a head.
type Table struct {
	Head []string // nil: none
	Rows [][]string
}

// Text writes the table with aligned columns, for a terminal.
func (t Table) Text(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if t.Head != nil {
		fmt.Fprintln(w, strings.Join(t.Head, "\t"))
	}
	for _, r := range t.Rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// Markdown writes the table as Markdown.
func (t Table) Markdown(w io.Writer) error {
	text := fmt.Sprintf("| %s |\n|%s\n", strings.Join(t.Head, " | "),
		strings.Repeat("---|", len(t.Head)))
	for _, r := range t.Rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = strings.ReplaceAll(c, "|", "\\|")
		}
		text += fmt.Sprintf("| %s |\n", strings.Join(cells, " | "))
	}
	_, err := io.WriteString(w, text)
	return err
}

// BytesText returns a size with its unit, in steps of 1024.
func BytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// SecondsText returns a time with its unit, s or ms.
func SecondsText(s float64) string {
	if s >= 1 {
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.3g ms", s*1000)
}
