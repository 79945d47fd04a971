package train

import (
	"errors"
	"fmt"
	"math"
)

// Optimizer changes the values of one block by their gradient.
type Optimizer interface {
	Step(values, grad []float32, rate float64)
	moments() (steps int, m []moments) // its state
	restore(steps int, m []moments) error
}

// Optimizers returns the task file's names of the optimizers.
func Optimizers() []string { return []string{"adamw", "adafactor", "sgd"} }

var errMoments = errors.New("the optimizer's moments have another size")

// OptimizerConfig is the task file's choice of an optimizer.
type OptimizerConfig struct {
	Name        string
	Betas       [2]float64 // of adamw
	WeightDecay float64
}

// NewOptimizer returns an optimizer for a matrix of values.
func NewOptimizer(c OptimizerConfig, rows, cols int) (Optimizer, error) {
	n := rows * cols
	switch c.Name {
	case "adafactor":
		return NewAdafactor(rows, cols, c.WeightDecay, rows >= minFactored && cols >= minFactored), nil
	case "adamw":
		return &AdamW{
			Beta1: c.Betas[0], Beta2: c.Betas[1], Eps: 1e-8, WeightDecay: c.WeightDecay,
			m: make([]float32, n), v: make([]float32, n),
		}, nil
	case "sgd":
		return &SGD{WeightDecay: c.WeightDecay}, nil
	}
	return nil, fmt.Errorf("there is no optimizer %q", c.Name)
}

// AdamW is torch.optim.AdamW (Loshchilov and Hutter 2019), with its order of operations:
//
//	p ← p (1 − rate·λ)
//	m ← m + (g − m)(1 − β1)
//	v ← β2 v + (1 − β2) g²
//	p ← p − rate/(1 − β1ᵗ) · m / (√v/√(1 − β2ᵗ) + ε)
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
	m, v                           []float32
	t                              int
}

// Step changes the values by their gradient.
func (a *AdamW) Step(values, grad []float32, rate float64) {
	a.t++
	step := rate / (1 - math.Pow(a.Beta1, float64(a.t)))
	root := math.Sqrt(1 - math.Pow(a.Beta2, float64(a.t)))
	decay := float32(1 - rate*a.WeightDecay)
	for i, g := range grad {
		a.m[i] += (g - a.m[i]) * float32(1-a.Beta1)
		a.v[i] = a.v[i]*float32(a.Beta2) + g*g*float32(1-a.Beta2)
		denominator := float32(math.Sqrt(float64(a.v[i]))/root) + float32(a.Eps)
		values[i] = values[i]*decay - float32(step)*(a.m[i]/denominator)
	}
}

func (a *AdamW) moments() (int, []moments) { return a.t, []moments{widen(a.m), widen(a.v)} }

func (a *AdamW) restore(steps int, m []moments) error {
	if len(m) != 2 || len(m[0]) != len(a.m) || len(m[1]) != len(a.v) {
		return errMoments
	}
	a.t = steps
	for i := range a.m {
		a.m[i], a.v[i] = float32(m[0][i]), float32(m[1][i])
	}
	return nil
}

func widen(x []float32) moments {
	m := make(moments, len(x))
	for i, v := range x {
		m[i] = float64(v)
	}
	return m
}

// minFactored is the smallest number of rows, and of columns, of a matrix whose second moments T5X
// keeps as one row and one column. Those of smaller matrices are kept whole.
const minFactored = 128

// Adafactor is the optimizer of Shazeer and Stern (2018) with the settings of Lester et al. (2021)
// in T5X: no momentum, no scaling by the parameter's size, β2 = 1 − t^−0.8, updates u = g/√v with an
// RMS of at most 1, p ← (1 − λ) p − rate·u. The decay λ is not multiplied by the rate.
type Adafactor struct {
	WeightDecay float64

	cols     int
	factored bool
	v        []float64 // mean square of each value's gradient; factored: of each row and column
	u        []float64
	t        int
}

// NewAdafactor returns an Adafactor that keeps the second moments of each value, or if factored those
// of each row and column.
func NewAdafactor(rows, cols int, weightDecay float64, factored bool) *Adafactor {
	n := rows * cols
	if factored {
		n = rows + cols
	}
	return &Adafactor{
		WeightDecay: weightDecay, cols: cols, factored: factored,
		v: make([]float64, n), u: make([]float64, rows*cols),
	}
}

// Step changes the values by their gradient.
func (a *Adafactor) Step(values, grad []float32, rate float64) {
	const decay, eps = 0.8, 1e-30
	a.t++
	beta := 1 - math.Pow(float64(a.t), -decay)
	if a.factored {
		a.factors(grad, beta, eps)
	} else {
		for i, g := range grad {
			a.v[i] = beta*a.v[i] + (1-beta)*(float64(g)*float64(g)+eps)
			a.u[i] = float64(g) / math.Sqrt(a.v[i])
		}
	}
	square := 0.0
	for _, u := range a.u {
		square += u * u
	}
	rate /= max(1, math.Sqrt(square/float64(len(a.u))))
	for i, u := range a.u {
		values[i] = float32((1-a.WeightDecay)*float64(values[i]) - rate*u)
	}
}

func (a *Adafactor) moments() (int, []moments) { return a.t, []moments{a.v} }

func (a *Adafactor) restore(steps int, m []moments) error {
	if len(m) != 1 || len(m[0]) != len(a.v) {
		return errMoments
	}
	a.t = steps
	copy(a.v, m[0])
	return nil
}

// factors computes the update u from the moments of rows, r, and of columns, c: the second moment of
// value i, j is r[i] c[j] / mean(r).
func (a *Adafactor) factors(grad []float32, beta, eps float64) {
	rows := len(grad) / a.cols
	r, c := a.v[:rows], a.v[rows:]
	sums := make([]float64, rows+a.cols)
	for i, g := range grad {
		square := float64(g)*float64(g) + eps
		sums[i/a.cols] += square / float64(a.cols)
		sums[rows+i%a.cols] += square / float64(rows)
	}
	mean := 0.0
	for i, s := range sums {
		a.v[i] = beta*a.v[i] + (1-beta)*s
		if i < rows {
			mean += a.v[i] / float64(rows)
		}
	}
	for i, g := range grad {
		a.u[i] = float64(g) / math.Sqrt(r[i/a.cols]*c[i%a.cols]/mean)
	}
}

// SGD is p ← p − rate (g + λ p), torch.optim.SGD without momentum.
type SGD struct{ WeightDecay float64 }

// Step changes the values by their gradient.
func (s *SGD) Step(values, grad []float32, rate float64) {
	for i, g := range grad {
		values[i] -= float32(rate) * (g + float32(s.WeightDecay)*values[i])
	}
}

func (s *SGD) moments() (int, []moments) { return 0, nil }

func (s *SGD) restore(_ int, m []moments) error {
	if len(m) != 0 {
		return errMoments
	}
	return nil
}
