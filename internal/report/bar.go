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
	var evals evaluations
	var measured pace
	lastEval, shown := "", false
	hide := func() {
		if shown {
			fmt.Fprint(w, "\r\x1b[K")
			shown = false
		}
	}
	draw := func(line string, done, of int) {
		if width := min(30, columns-len(line)-3); width >= 5 {
			full := width * done / of
			line = "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]" + line
		} else if len(line) >= columns {
			line = line[:max(0, columns-1)]
		}
		fmt.Fprint(w, "\r\x1b[K"+line)
		shown = true
	}
	return func(e Event) {
		switch e := e.(type) {
		case Start:
			started, first = time.Now(), -1
			evals.every = e.EvalEvery
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
			seconds := time.Since(started).Seconds() - evals.since
			left := seconds/float64(e.Step-first)*float64(e.Of-e.Step) + evals.left(e.Step, e.Of)
			line := fmt.Sprintf(" %d/%d  loss %.4f%s  %.0f tokens/s  %s left  %d MB",
				e.Step, e.Of, float64(e.Loss), lastEval, float64(tokens)/seconds,
				time.Duration(left*float64(time.Second)).Round(time.Second), memory()>>20)
			draw(line, e.Step, e.Of)
			if e.Step == e.Of {
				fmt.Fprintln(w)
				shown = false
			}
		case Progress:
			line := measured.line(e)
			switch {
			case e.Done == e.Of:
				hide()
			case time.Since(drawn) >= every:
				drawn = time.Now()
				draw(" "+line, e.Done, e.Of)
			}
		case Eval:
			hide()
			evals.add(e, first >= 0)
			lastEval = fmt.Sprintf("  %s %.4f", e.Set, float64(e.Loss))
			if e.Accuracy != nil {
				lastEval = fmt.Sprintf("  %s accuracy %.3f", e.Set, *e.Accuracy)
			}
			text(e)
		case Stuck, End, Note:
			hide()
			text(e)
		}
	}
}

// evaluations is what evaluations take.
type evaluations struct {
	every   int     // steps
	n, step int     // number of evaluations, and the step of the last
	seconds float64 // of all of them
	since   float64 // of those after the first step
}

// add counts the evaluation of one set. started reports whether a step was taken before it.
func (x *evaluations) add(e Eval, started bool) {
	if x.n == 0 || e.Step != x.step {
		x.n, x.step = x.n+1, e.Step
	}
	x.seconds += e.Seconds
	if started {
		x.since += e.Seconds
	}
}

// left returns the seconds of the evaluations that follow a step.
func (x *evaluations) left(step, of int) float64 {
	if x.every == 0 || x.n == 0 {
		return 0
	}
	left := of/x.every - (step-1)/x.every // that of this step is still to come
	if of%x.every != 0 {
		left++
	}
	return x.seconds / float64(x.n) * float64(left)
}

// pace measures how fast rows are evaluated.
type pace struct {
	what  string
	done  int
	begin time.Time
}

// line returns an event's line: rows done and the time left.
func (p *pace) line(e Progress) string {
	if e.What != p.what || e.Done < p.done || e.Done == 0 {
		*p = pace{what: e.What, begin: time.Now()}
	}
	p.done = e.Done
	line := fmt.Sprintf("%s: %d of %d rows measured", e.What, e.Done, e.Of)
	if e.Done > 0 {
		left := time.Since(p.begin) * time.Duration(e.Of-e.Done) / time.Duration(e.Done)
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return line
}
