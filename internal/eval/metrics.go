package eval

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Class is precision, recall and F1 of one label, as scikit-learn's
// precision_recall_fscore_support(zero_division=0) computes them.
type Class struct {
	Label     string  `json:"label"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	Rows      int     `json:"rows"` // with this label
}

// Interval is a 95 % bootstrap interval.
type Interval [2]float64

// Confusion counts rows: [true label, predicted label].
func Confusion(truth, predicted []int, classes int) [][]int {
	m := make([][]int, classes)
	for i := range m {
		m[i] = make([]int, classes)
	}
	for i, t := range truth {
		m[t][predicted[i]]++
	}
	return m
}

// Classes returns the table of all labels.
func Classes(confusion [][]int, names []string) []Class {
	classes := make([]Class, len(confusion))
	for c := range classes {
		tp, got, has := confusion[c][c], 0, 0
		for k := range confusion {
			got += confusion[k][c]
			has += confusion[c][k]
		}
		x := Class{Label: names[c], Rows: has}
		if got > 0 {
			x.Precision = float64(tp) / float64(got)
		}
		if has > 0 {
			x.Recall = float64(tp) / float64(has)
		}
		if got+has > 0 {
			x.F1 = 2 * float64(tp) / float64(got+has)
		}
		classes[c] = x
	}
	return classes
}

// MCC returns Matthews' correlation coefficient of any number of classes (Gorodkin 2004). Where it is
// undefined it is 0, as scikit-learn's.
func MCC(confusion [][]int) float64 {
	var n, correct, cross, tt, pp float64
	for c := range confusion {
		var truth, predicted float64
		for k := range confusion {
			truth += float64(confusion[c][k])
			predicted += float64(confusion[k][c])
		}
		n += truth
		correct += float64(confusion[c][c])
		cross += truth * predicted
		tt += truth * truth
		pp += predicted * predicted
	}
	if d := math.Sqrt((n*n - pp) * (n*n - tt)); d > 0 {
		return (correct*n - cross) / d
	}
	return 0
}

// bins is the number of bins of Guo et al. 2017.
const bins = 15

// CalibrationError returns the expected calibration error: the mean difference between confidence and
// accuracy over equally wide bins of confidence, weighted by their rows (Guo et al. 2017, equation 3).
// It is NaN if a confidence is.
func CalibrationError(correct []bool, confidence []float64) float64 {
	var sum, hits [bins]float64
	for i, c := range confidence {
		if math.IsNaN(c) {
			return c
		}
		b := min(bins-1, int(c*bins))
		sum[b] += c
		if correct[i] {
			hits[b]++
		}
	}
	e := 0.0
	for b := range bins {
		e += math.Abs(hits[b]-sum[b]) / float64(len(confidence))
	}
	return e
}

// resamples is the number of bootstrap samples of an interval.
const resamples = 1000

// intervals returns the 95 % bootstrap intervals of accuracy and macro-F1. They are the same each time
// for the same rows. Macro-F1 counts a class without rows as 0, and a plain sample of the rows lacks
// rare classes that the rows have. So its samples have as many rows of each class as the rows.
func intervals(truth, predicted []int, classes int) (accuracy, f1 Interval) {
	const seed = 0x626f6f74 // "boot"
	p := make([]int, len(truth))
	sample := func(metric func(t, p []int) float64, draw func(t []int, r *rand.Rand)) Interval {
		r, t, values := rand.New(rand.NewPCG(0, seed)), make([]int, len(truth)), make([]float64, resamples)
		for i := range values {
			draw(t, r)
			values[i] = metric(t, p)
		}
		slices.Sort(values)
		return Interval{values[resamples*25/1000], values[resamples*975/1000-1]}
	}
	accuracy = sample(Accuracy, func(t []int, r *rand.Rand) {
		for k := range t {
			row := r.IntN(len(truth))
			t[k], p[k] = truth[row], predicted[row]
		}
	})
	of := make([][]int, classes) // the rows of each class
	for row, c := range truth {
		of[c] = append(of[c], row)
	}
	f1 = sample(func(t, p []int) float64 { return MacroF1(t, p, classes) }, func(t []int, r *rand.Rand) {
		for k, c := range truth {
			t[k], p[k] = c, predicted[of[c][r.IntN(len(of[c]))]]
		}
	})
	return accuracy, f1
}
