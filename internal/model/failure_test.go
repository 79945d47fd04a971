package model_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"ptune/internal/batch"
	"ptune/internal/model"
)

// failAfter makes m's operators work until n of them have run, and fail then. A negative n: never.
func failAfter(m *model.Model) (n *int) {
	n = new(int)
	*n = -1
	m.Observe = func(string, float64, float64, time.Duration) {
		if *n == 0 {
			panic("this operator fails")
		}
		*n--
	}
	return n
}

func TestAStepAfterOneThatFailedInAPartGivesTheSameBits(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		left := failAfter(m)
		var examples []batch.Example
		for i := range 6 {
			examples = append(examples, batch.Example{IDs: []int32{1, 20, 3, int32(5 + i), 9, 7},
				From: 3})
		}
		f := batch.Pack([]int{3}, examples)
		m.PartRows = 4
		values := prompt(m, 3)
		step := func() ([]float32, []float32, error) {
			grad := make([]float32, len(values))
			nll, err := m.LossGrad(values, f, grad)
			return slices.Clone(nll), grad, err
		}
		want, wantGrad, err := step()
		if err != nil {
			t.Fatal(err)
		}
		ran := 0
		for _, n := range []int{1, 12, 40, 80, 120} {
			*left = n
			if _, _, err := step(); err == nil {
				break // a step has fewer operators
			}
			ran++
			*left = -1
			nll, grad, err := step()
			if err != nil || !slices.Equal(nll, want) || !slices.Equal(grad, wantGrad) {
				t.Errorf("after a failure in operator %d: error %v, or other bits", n+1, err)
			}
		}
		if ran < 3 {
			t.Errorf("only %d steps failed", ran)
		}
	})
}

func TestASoftPromptWhosePassFailedIsComputedByTheNext(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		left := failAfter(m)
		texts := []batch.Text{{IDs: []int32{1, 20, 3}, Room: 5}}
		_, _, want := begin(t, m, prompt(m, 3), []int{3}, texts, 5)
		d := m.NewDecoder(math.MaxInt32)
		p, err := d.AddPrompt(prompt(m, 3))
		if err != nil {
			t.Fatal(err)
		}
		before := used(d)
		texts[0].Prompt = p
		*left = 5
		if _, _, err := d.Add(texts); err == nil {
			t.Fatal("the pass did not fail")
		}
		if got := used(d); got != before {
			t.Errorf("%d bytes of the cache are in use after the failure, want %d", got, before)
		}
		*left = -1
		_, got, err := d.Add(texts)
		if err != nil || !sameBits(got, want) {
			t.Errorf("after a failure: error %v, or other logits", err)
		}
	})
}

func TestAPassThatIsStoppedChangesNoBitOfTheNext(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		f, p := batch.Pack([]int{4}, ragged()), prompt(m, 4)
		want, wantGrad := lossGrad(t, m, p, f)
		reason, calls := errors.New("enough"), 0
		for _, last := range []int{0, 3, 11} {
			calls = 0
			m.Stop = func() error {
				if calls++; calls > last {
					return reason
				}
				return nil
			}
			if _, err := m.LossGrad(p, f, make([]float32, len(p))); err != reason {
				t.Errorf("%s, stopped after %d operators: error is %v, want the reason", name, last, err)
			}
			m.Stop = nil
			if got, grad := lossGrad(t, m, p, f); got != want || !slices.Equal(grad, wantGrad) {
				t.Errorf("%s, stopped after %d operators: the next pass has other bits", name, last)
			}
		}
	}
}
