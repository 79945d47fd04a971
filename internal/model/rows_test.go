package model_test

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
)

// A base model with a prompt in its vocabulary is written and read again. Its logits after the
// new tokens equal those of the base model after the prompt, rounded to the type of the weights.
// The cases are spare and new rows, tied and separate heads, shards and every type of weights.
func TestAPromptInTheVocabularyGivesTheLogitsOfThePrompt(t *testing.T) {
	pool, err := kernels.New(kernels.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, path := range goldenPaths(t) {
		dir := filepath.Dir(path)
		for _, first := range []int{97, 99} {
			m, g := open(t, dir, pool)
			prompt := g.values(t, "prompt")
			p, to := len(prompt)/m.Hidden, t.TempDir()
			extra := map[string][]byte{"more.txt": []byte("x")}
			if _, err := m.SaveWithTokens(dir, to, first, prompt, extra); err != nil {
				t.Fatal(err)
			}
			served, err := model.Load(to, pool)
			if err != nil {
				t.Fatal(err)
			}
			var ids []int32
			var rounded []float32
			for i := range p {
				ids, rounded = append(ids, int32(first+i)),
					append(rounded, served.EmbeddingRow(first+i)...)
			}
			for i, v := range rounded {
				if d := math.Abs(float64(v - prompt[i])); d > math.Abs(float64(prompt[i]))/128 {
					t.Fatalf("%s: value %d of the prompt is %g, in the vocabulary %g",
						filepath.Base(dir), i, prompt[i], v)
				}
			}
			var rows []batch.Example
			for _, r := range g.Batches[0] {
				for i, id := range r.IDs {
					if int(id) >= first { // this id is a virtual token now
						r.IDs[i] = 5
					}
				}
				if r.Inputs > 0 {
					rows = append(rows, batch.Example{IDs: r.IDs, From: r.Inputs})
				}
			}
			want, err := m.Logits(rounded, batch.Pack([]int{p}, rows))
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				rows[i] = batch.Example{IDs: slices.Concat(ids, rows[i].IDs), From: p + rows[i].From}
			}
			got, err := served.Logits(nil, batch.Pack(nil, rows))
			if err != nil {
				t.Fatal(err)
			}
			tolerance := 1e-5
			if filepath.Base(dir) == "falcon-rw" { // without a prompt its biases are bfloat16
				tolerance = 0.02
			}
			for i := range want.Rows {
				within(t, filepath.Base(dir), got.Row(i)[:97], want.Row(i)[:97],
					tolerance*largest(want.Row(i)))
			}
			served.Close()
			g.tensors.Close()
			m.Close()
		}
	}
}
