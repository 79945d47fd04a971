package report

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Bar writes what Text does for a terminal of so many columns: steps as one line that is drawn over and over, with how far the run
// is, its loss and last evaluation, tokens a second, time left and memory.
func Bar(w io.Writer, columns int, every time.Duration, memory func() int64) Func {
	text := Text(w, time.Hour)
	var drawn, begun time.Time
	var first, tokens int
	last, shown := "", false
	hide := func() {
		if shown {
			fmt.Fprint(w, "\r\x1b[K")
			shown = false
		}
	}
	return func(e Event) {
		switch e := e.(type) {
		case Start:
			begun, first = time.Now(), -1
			text(e)
		case Step:
			if first < 0 {
				first, begun = e.Step-1, time.Now().Add(-time.Duration(e.Seconds*float64(time.Second)))
			}
			tokens += e.Tokens
			if time.Since(drawn) < every && e.Step != e.Of {
				return
			}
			drawn = time.Now()
			took := time.Since(begun).Seconds()
			left := time.Duration(took / float64(e.Step-first) * float64(e.Of-e.Step) * float64(time.Second))
			tail := fmt.Sprintf(" %d/%d  loss %.4f%s  %.0f tokens/s  %s left  %d MB", e.Step, e.Of, float64(e.Loss), last, float64(tokens)/took, left.Round(time.Second), memory()>>20)
			line := tail
			if room := min(30, columns-len(tail)-3); room >= 5 {
				full := room * e.Step / e.Of
				line = "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]" + tail
			} else if len(tail) >= columns {
				line = tail[:max(0, columns-1)]
			}
			fmt.Fprint(w, "\r\x1b[K"+line)
			if shown = true; e.Step == e.Of {
				fmt.Fprintln(w)
				shown = false
			}
		case Eval:
			hide()
			if last = fmt.Sprintf("  %s %.4f", e.Set, float64(e.Loss)); e.Accuracy != nil {
				last = fmt.Sprintf("  %s accuracy %.3f", e.Set, *e.Accuracy)
			}
			text(e)
		case End:
			hide()
			text(e)
		}
	}
}
