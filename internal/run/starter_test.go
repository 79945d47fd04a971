package run

import (
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
		for i := range n {
			choices = append(choices, data.Choice{IDs: []int32{int32(i), 1, 2, 3, 4}})
		}
		return choices
	}
	for _, c := range []struct {
		what                 string
		train, valid, labels int
		every, rows          int
	}{
		{"few rows", 90, 10, 2, 50, 0},
		{"a thousand rows and two labels", 900, 100, 2, 50, 0},
		{"nine thousand rows and two labels", 9000, 1000, 2, 200, 0},
		{"nine thousand rows and 77 labels", 9000, 1000, 77, 200, 0},
		{"a valid file as large as the training file", 1000, 1000, 0, 50, 450},
		{"a valid file ten times as large", 1000, 10000, 77, 50, 270},
	} {
		r := &Rows{Train: set(c.train), Valid: []*data.Set{set(c.valid)}, Choices: labels(c.labels)}
		e := planEvaluations(r, 16, 1e6)
		if e.every != c.every || e.rows != c.rows || e.share > maxEvalShare {
			t.Errorf("%s: %+v, want every %d steps on %d rows", c.what, e, c.every, c.rows)
		}
	}
}
