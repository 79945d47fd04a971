package run

import (
	"math"
	"testing"

	"ptune/internal/data"
)

func TestEvaluationsOfAStarterTakeLessThanAFifthOfTheTime(t *testing.T) {
	set := func(n int) *data.Set {
		s := &data.Set{}
		for range n {
			s.Rows = append(s.Rows, data.Row{Input: make([]int32, 20), Target: make([]int32, 2)})
		}
		return s
	}
	labels := func(n int) (choices []data.Choice) {
		for range n {
			choices = append(choices, data.Choice{IDs: make([]int32, 5)})
		}
		return choices
	}
	for _, c := range []struct {
		what                 string
		train, valid, labels int
		every                int
	}{
		{"few rows", 90, 10, 2, 50},
		{"a thousand rows and two labels", 900, 100, 2, 50},
		{"nine thousand rows and two labels", 9000, 1000, 2, 200},
		{"nine thousand rows and 77 labels", 9000, 1000, 77, 200},
		{"a valid file as large as the training file", 1000, 1000, 0, 50},
	} {
		r := &Rows{Train: set(c.train), Valid: []*data.Set{set(c.valid)}, Choices: labels(c.labels)}
		every, share := planEvaluations(r, 16)
		evals := math.Ceil(math.Ceil(float64(c.train*3)/16)/float64(every)) + 1
		if every != c.every || share > maxEvalShare && evals > 2*minEvals+2 {
			t.Errorf("%s: every %d steps for %.2f of the time, want every %d", c.what, every, share, c.every)
		}
	}
}
