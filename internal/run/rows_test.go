package run

import (
	"math"
	"strings"
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

func TestRowsThatAreProbablyNotAsMeantAreNoted(t *testing.T) {
	set := func(path string, texts ...string) *data.Set {
		s := &data.Set{Path: path}
		for i, text := range texts {
			s.Rows = append(s.Rows, data.Row{Line: i + 1, Text: text})
		}
		return s
	}
	const overlap = "the text of a training row, so they do not show how well the prompt does on new rows"
	const blank = "in a blank (the first in line 2), which most tokenizers join with the next word; " +
		"if the template has it, put it at the beginning of data.target"
	for _, c := range []struct {
		what         string
		train, valid *data.Set
		want         []string
	}{
		{"all is well", set("a", "x", "x"), set("b", "y"), nil},
		{"the same rows", set("a", "x", "y"), set("a", "x", "y"), []string{"a: all 2 rows have " + overlap}},
		{"one row", set("a", "x", "y"), set("b", "z", "x"), []string{"b: 1 of 2 rows has " + overlap}},
		{"some rows", set("a", "x", "y"), set("b", "z", "x", "y"), []string{"b: 2 of 3 rows have " + overlap}},
		{"a blank", set("a", "x", "y ", "z "), set("-", "u", "v ", "w"), []string{
			"a: the input of 2 of 3 rows ends " + blank, "standard input: the input of 1 of 3 rows ends " + blank}},
	} {
		r := &Rows{Train: c.train, Valid: []*data.Set{c.valid}}
		if got := r.unusual(); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: notes are %q, want %q", c.what, got, c.want)
		}
	}
}
