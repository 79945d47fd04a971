package run

import (
	"fmt"
	"slices"
	"strings"

	"ptune/internal/base"
	"ptune/internal/data"
	"ptune/internal/report"
)

// ShownRow is a training row as the model reads it.
type ShownRow struct {
	File          string       `json:"file"`
	Line          int          `json:"line"`
	Tokens        []ShownToken `json:"tokens"`
	VirtualTokens int          `json:"virtual_tokens"`
}

// ShownToken is a token of a row.
type ShownToken struct {
	ID      int32  `json:"id"`
	Token   string `json:"token"`
	Learned bool   `json:"learned"` // part of the target
}

// Show returns the first n training rows, after a prompt of virtual tokens.
func (r *Rows) Show(n int, b *base.Base, virtual int) []ShownRow {
	var shown []ShownRow
	for _, row := range r.Train.Rows[:min(n, len(r.Train.Rows))] {
		x := ShownRow{File: r.Train.Path, Line: row.Line, VirtualTokens: virtual}
		for i, id := range slices.Concat(row.Input, row.Target) {
			x.Tokens = append(x.Tokens, ShownToken{id, b.Tokenizer.Piece(id), i >= len(row.Input)})
		}
		shown = append(shown, x)
	}
	return shown
}

// Text returns the row for people: each token with its id, and [brackets] around those of the target.
func (r ShownRow) Text() string {
	var tokens strings.Builder
	learned := 0
	for _, t := range r.Tokens {
		format := " %q %d"
		if t.Learned {
			format, learned = " [%q %d]", learned+1
		}
		fmt.Fprintf(&tokens, format, t.Token, t.ID)
	}
	return fmt.Sprintf("%s:%d: %d virtual tokens, then %d of input and %d of target\n%s",
		r.File, r.Line, r.VirtualTokens, len(r.Tokens)-learned, learned, tokens.String())
}

// Stats returns the stats of the training set and of each validation set.
func (r *Rows) Stats() []data.Stats { return data.StatsOf(r.Train, r.Valid, r.Format.Labels) }

// StatsTables returns stats as a table of the sets and one of the labels, without rows if there are
// none.
func (r *Rows) StatsTables(stats []data.Stats) (sets, labels report.Table) {
	sets.Head = []string{
		"set", "rows", "tokens", "median", "95 %", "longest",
		"equal texts", "also in training", "dropped", "cut",
	}
	labels.Head = []string{"label"}
	for _, l := range r.Format.Labels {
		labels.Rows = append(labels.Rows, []string{l.Name})
	}
	for _, x := range stats {
		row := []string{x.Set}
		for _, n := range []int{
			x.Rows, x.Tokens, x.Median, x.P95, x.Longest, x.Equal, x.Shared, x.Dropped, x.Cut,
		} {
			row = append(row, fmt.Sprint(n))
		}
		sets.Rows = append(sets.Rows, row)
		labels.Head = append(labels.Head, x.Set)
		for i, l := range r.Format.Labels {
			labels.Rows[i] = append(labels.Rows[i], fmt.Sprint(x.Classes[l.Name]))
		}
	}
	return sets, labels
}
