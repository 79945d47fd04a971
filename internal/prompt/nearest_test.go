package prompt_test

import (
	"math"
	"reflect"
	"testing"

	"ptune/internal/prompt"
)

func TestNearestTokensHaveTheLargestCosines(t *testing.T) {
	rows := [][]float32{{3, 0}, {0, 0}, {1, 1}, {-1, 0}, {9, 0}, {0, 2}}
	s := prompt.Source{Vocab: len(rows), Row: func(id int) []float32 { return rows[id] }}
	p := &prompt.Prompt{Rows: 3, Dim: 2, Values: []float32{5, 0, 0, 1, 0, 0}}

	got, meanNorm := p.Nearest(s, 3)

	half := 1 / math.Sqrt2
	want := [][]prompt.Neighbor{
		{{0, 1}, {4, 1}, {2, half}}, // tokens 0 and 4 are equally near: the lower id is first
		{{5, 1}, {2, half}, {0, 0}},
		{{0, 0}, {1, 0}, {2, 0}}, // a zero vector is near to nothing
	}
	for i := range got {
		for k := range got[i] {
			got[i][k].Cosine = math.Round(got[i][k].Cosine*1e12) / 1e12
		}
		for k := range want[i] {
			want[i][k].Cosine = math.Round(want[i][k].Cosine*1e12) / 1e12
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the nearest tokens are %v, want %v", got, want)
	}
	if want := (3 + 0 + math.Sqrt2 + 1 + 9 + 2) / 6; !(math.Abs(meanNorm-want) <= 1e-12) {
		t.Errorf("the mean norm is %g, want %g", meanNorm, want)
	}
	if got, _ := p.Nearest(s, 99); len(got[0]) != len(rows) {
		t.Errorf("%d tokens of a vocabulary of %d", len(got[0]), len(rows))
	}
}
