package run

import (
	"math"
	"testing"

	"ptune/internal/data"
)

func TestGuessLossIsTheEntropyOfTheLabelsPerToken(t *testing.T) {
	r := &Rows{Choices: make([]data.Choice, 3), Train: &data.Set{}}
	for label, n := range []int{3, 1, 0} {
		for range n { // targets of 2 and 4 tokens: 10 tokens in all
			row := data.Row{Label: label, Target: make([]int32, 2+2*label)}
			r.Train.Rows = append(r.Train.Rows, row)
		}
	}
	want := -(3*math.Log(0.75) + math.Log(0.25)) / 10
	if got := r.guessLoss(); math.Abs(got-want) > 1e-15 {
		t.Errorf("guessLoss is %g, want %g", got, want)
	}
	r.Choices = nil
	if got := r.guessLoss(); got != 0 {
		t.Errorf("without labels guessLoss is %g, want 0", got)
	}
}
