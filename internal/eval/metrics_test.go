package eval

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// labelled returns true and predicted labels of n rows, of which about 60 % are right.
func labelled(n, classes int) (truth, predicted []int) {
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		t := r.IntN(classes) * r.IntN(2) // the first class is the most frequent
		p := t
		if r.IntN(10) < 4 {
			p = r.IntN(classes)
		}
		truth, predicted = append(truth, t), append(predicted, p)
	}
	return truth, predicted
}

// TestMCCIsTheCorrelationOfTheLabels compares with the definition: the covariance of the labels as
// vectors with a one, over the product of their deviations (Gorodkin 2004, equation 8).
func TestMCCIsTheCorrelationOfTheLabels(t *testing.T) {
	for _, classes := range []int{2, 3, 5} {
		truth, predicted := labelled(50, classes)
		covariance := func(a, b []int) (sum float64) {
			n := float64(len(a))
			for k := range classes {
				var inA, inB, both float64
				for i := range a {
					if a[i] == k {
						inA++
					}
					if b[i] == k {
						inB++
					}
					if a[i] == k && b[i] == k {
						both++
					}
				}
				sum += both/n - inA/n*(inB/n)
			}
			return sum
		}
		want := covariance(truth, predicted) /
			math.Sqrt(covariance(truth, truth)*covariance(predicted, predicted))
		got := MCC(Confusion(truth, predicted, classes))
		if !(math.Abs(got-want) <= 1e-12) || got < 0.2 || got > 0.9 {
			t.Errorf("%d classes: MCC is %g, want %g", classes, got, want)
		}
		if got := MCC(Confusion(truth, truth, classes)); !(math.Abs(got-1) <= 1e-12) {
			t.Errorf("%d classes: MCC of the truth itself is %g, want 1", classes, got)
		}
	}
	for _, undefined := range [][][]int{{{0, 0}, {0, 0}}, {{3, 0}, {4, 0}}, {{3, 4}, {0, 0}}} {
		if got := MCC(undefined); got != 0 {
			t.Errorf("MCC of %v is %g, want 0: one of the labels is constant", undefined, got)
		}
	}
}

func TestClassesCountWhatWasPredictedAndWhatIsTrue(t *testing.T) {
	got := Classes([][]int{{3, 1, 0}, {2, 4, 0}, {0, 0, 0}}, []string{"a", "b", "c"})
	want := []Class{
		{Label: "a", Precision: 3.0 / 5, Recall: 3.0 / 4, F1: 6.0 / 9, Rows: 4},
		{Label: "b", Precision: 4.0 / 5, Recall: 4.0 / 6, F1: 8.0 / 11, Rows: 6},
		{Label: "c"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("classes are %+v, want %+v", got, want)
	}
	// Predicted but never true, and true but never predicted.
	got = Classes([][]int{{0, 0}, {2, 0}}, []string{"a", "b"})
	if want := []Class{{Label: "a"}, {Label: "b", Rows: 2}}; !slices.Equal(got, want) {
		t.Errorf("classes are %+v, want %+v", got, want)
	}
}

func TestTheCalibrationErrorWeighsTheBinsByTheirRows(t *testing.T) {
	for name, c := range map[string]struct {
		correct    []bool
		confidence []float64
		want       float64
	}{
		"certain and right": {[]bool{true, true}, []float64{1, 1}, 0},
		"certain and wrong": {[]bool{false}, []float64{1}, 1},
		// 0.5 and 0.52 share a bin of 15: half of them is right. 0.9 is alone in another.
		"two bins":          {[]bool{true, false, true}, []float64{0.5, 0.52, 0.9}, (0.02 + 0.1) / 3},
		"an empty bin":      {[]bool{true}, []float64{0.25}, 0.75},
		"the first bin":     {[]bool{false, false}, []float64{0, 0.06}, 0.06 / 2},
		"the last two bins": {[]bool{true, false}, []float64{0.9, 0.95}, (0.1 + 0.95) / 2},
		// At 1/15 the second bin begins. The errors of the two rows do not cancel each other.
		"a boundary": {[]bool{true, false}, []float64{1.0/15 - 1e-9, 1.0 / 15}, (1 - 1.0/15 + 1.0/15) / 2},
	} {
		if got := CalibrationError(c.correct, c.confidence); !(math.Abs(got-c.want) <= 1e-8) {
			t.Errorf("%s: error is %g, want %g", name, got, c.want)
		}
	}
}

// TestIntervalsAreTheMiddleOfTheResampledMetrics takes the same samples and leaves out 25 of 1,000
// at each end. A sample for macro-F1 has as many rows of each class as the rows.
func TestIntervalsAreTheMiddleOfTheResampledMetrics(t *testing.T) {
	const classes = 3
	truth, predicted := labelled(97, classes)
	accuracy, f1 := intervals(truth, predicted, classes)
	r, r1 := rand.New(rand.NewPCG(0, 0x626f6f74)), rand.New(rand.NewPCG(0, 0x626f6f74))
	var a, f []float64
	for range 1000 {
		var st, sp, sp1 []int
		for _, c := range truth {
			row := r.IntN(len(truth))
			st, sp = append(st, truth[row]), append(sp, predicted[row])
			var of []int // predictions of the rows of class c
			for i, other := range truth {
				if other == c {
					of = append(of, predicted[i])
				}
			}
			sp1 = append(sp1, of[r1.IntN(len(of))])
		}
		a, f = append(a, Accuracy(st, sp)), append(f, MacroF1(truth, sp1, classes))
	}
	slices.Sort(a)
	slices.Sort(f)
	if want := (Interval{a[25], a[974]}); accuracy != want {
		t.Errorf("the interval of accuracy is %v, want %v", accuracy, want)
	}
	if want := (Interval{f[25], f[974]}); f1 != want {
		t.Errorf("the interval of macro-F1 is %v, want %v", f1, want)
	}
	if p := Accuracy(truth, predicted); accuracy[0] >= p || p >= accuracy[1] {
		t.Errorf("the accuracy %g is not within its interval %v", p, accuracy)
	}
}

func TestMacroF1CountsAClassWithoutRowsAsZero(t *testing.T) {
	// sklearn.metrics.f1_score(truth, predicted, average="macro", labels=[0, 1, 2], zero_division=0)
	if got, want := MacroF1([]int{0, 0, 1}, []int{0, 1, 1}, 3), 4.0/9; !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("macro-F1 is %g, want %g", got, want)
	}
}

func TestTheCalibrationErrorOfNaNIsNaN(t *testing.T) {
	if e := CalibrationError([]bool{true, false}, []float64{0.5, math.NaN()}); !math.IsNaN(e) {
		t.Errorf("the error is %g, want NaN", e)
	}
}
