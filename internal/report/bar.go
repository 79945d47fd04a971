package report

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Bar returns a Func that writes the lines of Text to a terminal, but draws steps as one progress
// bar at most columns wide, redrawn at most once per interval: step, loss, last evaluation,
// tokens/s, time left, memory.
func Bar(w io.Writer, columns int, every time.Duration, memory func() int64) Func {
	text := Text(w, time.Hour)
	var drawn, started time.Time
	var first, tokens int // first: steps before this run, which may resume another
	lastEval, shown := "", false
	hide := func() {
		if shown {
			fmt.Fprint(w, "\r\x1b[K")
			shown = false
		}
	}
	return func(e Event) {
		switch e := e.(type) {
		case Start:
			started, first = time.Now(), -1
			text(e)
		case Step:
			if first < 0 {
				first = e.Step - 1
				started = time.Now().Add(-time.Duration(e.Seconds * float64(time.Second)))
			}
			tokens += e.Tokens
			if time.Since(drawn) < every && e.Step != e.Of {
				return
			}
			drawn = time.Now()
			seconds := time.Since(started).Seconds()
			left := seconds / float64(e.Step-first) * float64(e.Of-e.Step)
			line := fmt.Sprintf(" %d/%d  loss %.4f%s  %.0f tokens/s  %s left  %d MB",
				e.Step, e.Of, float64(e.Loss), lastEval, float64(tokens)/seconds,
				time.Duration(left*float64(time.Second)).Round(time.Second), memory()>>20)
			if width := min(30, columns-len(line)-3); width >= 5 {
				full := width * e.Step / e.Of
				line = "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]" + line
			} else if len(line) >= columns {
				line = line[:max(0, columns-1)]
			}
			fmt.Fprint(w, "\r\x1b[K"+line)
			if shown = true; e.Step == e.Of {
				fmt.Fprintln(w)
				shown = false
			}
		case Eval:
			hide()
			lastEval = fmt.Sprintf("  %s %.4f", e.Set, float64(e.Loss))
			if e.Accuracy != nil {
				lastEval = fmt.Sprintf("  %s accuracy %.3f", e.Set, *e.Accuracy)
			}
			text(e)
		case Stuck, End:
			hide()
			text(e)
		}
	}
}
