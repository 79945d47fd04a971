package eval

import (
	"fmt"
	"path/filepath"
)

// OtherRows returns a sentence if evaluation number n, from 0, and the earlier one that a gate compares
// it with are of different rows; else it is empty.
func OtherRows(gates []Gate, e Evaluation, n int) string {
	for _, g := range gates {
		if n >= len(g.Before) {
			continue
		}
		before := g.Before[n]
		if filepath.Base(before.Data) != filepath.Base(e.Data) || before.Rows != e.Rows {
			return fmt.Sprintf("%s compares %s (%d rows) with an earlier evaluation of %s (%d rows)",
				g.Option, e.Data, e.Rows, before.Data, before.Rows)
		}
	}
	return ""
}
