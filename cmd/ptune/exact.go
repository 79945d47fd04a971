package main

import (
	"context"
	"slices"

	"ptune/internal/base"
	"ptune/internal/generate"
	"ptune/internal/model"
)

// exactMatch is the share of the job's rows whose target is what the model writes: the likeliest token after the other, and then the end.
func exactMatch(ctx context.Context, b *base.Base, j evalJob, maxTokens int) (*float64, error) {
	equal, room := 0, b.MaxPositions-slices.Max(append(j.rows, 0)) // room behind the prompt, where positions are limited
	for rows := j.set.Rows; len(rows) > 0; {
		var texts []model.Text
		most, longest, tokens := 0, 0, 0
		for _, r := range rows {
			m, l := max(most, len(r.Target)), max(longest, len(r.Input)) // the target with its end token
			tokens += len(r.Input) + len(r.Target)
			if len(texts) > 0 && (tokens > maxTokens || b.MaxPositions > 0 && l+m > room) {
				break
			}
			texts, most, longest = append(texts, model.Text{IDs: r.Input}), m, l
		}
		d, logits, err := b.NewDecoder(j.values, j.rows, texts, most)
		if err != nil {
			return nil, err
		}
		said := func(i int) []int32 { return texts[i].IDs }
		nothing := func(int, []int32) string { return "" }
		answers, err := generate.Run(ctx, d, logits, said, nothing, generate.Options{Sampling: generate.Sampling{TopP: 1}, MaxTokens: most, EOS: []int32{j.eos}}, nil)
		if err != nil {
			return nil, err
		}
		for i, a := range answers {
			if t := rows[i].Target; a.FinishReason == generate.FinishEOS && slices.Equal(a.IDs, t[:len(t)-1]) {
				equal++
			}
		}
		rows = rows[len(texts):]
	}
	share := float64(equal) / float64(len(j.set.Rows))
	return &share, nil
}
