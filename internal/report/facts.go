package report

import (
	"fmt"
	"slices"
)

// Facts returns a table about a run. Every run has the same names, so that runs can stand side by side.
// The log has at least one step.
func (l *Log) Facts() []Fact {
	last := l.Steps[len(l.Steps)-1]
	seconds := make([]float64, len(l.Steps))
	for i, s := range l.Steps {
		seconds[i] = s.Seconds
	}
	slices.Sort(seconds)
	best, quality := "the last step", ""
	for _, e := range l.Evals {
		if e.Best {
			best, quality = fmt.Sprintf("step %d", e.Step), fmt.Sprintf("loss %.4f", float64(e.Loss))
			if e.Accuracy != nil {
				quality += fmt.Sprintf(", accuracy %.4f, macro-F1 %.4f", *e.Accuracy, *e.MacroF1)
			}
		}
	}
	end, memory := "not yet", ""
	if l.End != nil {
		end = fmt.Sprintf("%s, after %.1f s", l.End.StopReason, l.End.Seconds)
		memory = BytesText(l.End.PeakMemoryBytes)
	}
	s := l.Start
	return []Fact{
		{"base", s.Model},
		{"prompt", fmt.Sprintf("%d virtual tokens, %d values", s.VirtualTokens, s.Parameters)},
		{"rows", fmt.Sprint(s.Rows)},
		{"steps", fmt.Sprintf("%d of %d, batches of %d", last.Step, last.Of, s.BatchSize)},
		{"optimizer", fmt.Sprintf("%s at %.3g, seed %d", s.Optimizer, s.LearningRate, s.Seed)},
		{"best", best},
		{"validation", quality},
		{"end", end},
		{"step time", SecondsText(seconds[len(seconds)/2])},
		{"peak memory", memory},
		{"machine", s.Machine},
	}
}
