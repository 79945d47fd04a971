package train

import (
	"fmt"
	"math"
)

// Optimizer changes values by their gradient.
type Optimizer interface {
	Step(values, grad []float32, rate float64)
}

// Optimizers lists the optimizers by the names of the task file.
func Optimizers() []string { return []string{"adamw", "sgd"} }

// OptimizerConfig is the task file's choice.
type OptimizerConfig struct {
	Name        string
	Betas       [2]float64 // of adamw
	WeightDecay float64
}

// NewOptimizer makes the optimizer for n values.
func NewOptimizer(c OptimizerConfig, n int) (Optimizer, error) {
	switch c.Name {
	case "adamw":
		return &AdamW{Beta1: c.Betas[0], Beta2: c.Betas[1], Eps: 1e-8, WeightDecay: c.WeightDecay, m: make([]float32, n), v: make([]float32, n)}, nil
	case "sgd":
		return &SGD{WeightDecay: c.WeightDecay}, nil
	}
	return nil, fmt.Errorf("there is no optimizer %q", c.Name)
}

// AdamW is torch.optim.AdamW (Loshchilov and Hutter 2019), in its order of operations:
// p ← p (1 − rate·λ); m ← m + (g − m)(1 − β1); v ← β2 v + (1 − β2) g²; p ← p − rate/(1 − β1ᵗ) · m / (√v/√(1 − β2ᵗ) + ε).
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
	m, v                           []float32
	t                              int
}

func (a *AdamW) Step(values, grad []float32, rate float64) {
	a.t++
	step := rate / (1 - math.Pow(a.Beta1, float64(a.t)))
	root := math.Sqrt(1 - math.Pow(a.Beta2, float64(a.t)))
	decay := float32(1 - rate*a.WeightDecay)
	for i, g := range grad {
		a.m[i] += (g - a.m[i]) * float32(1-a.Beta1)
		a.v[i] = a.v[i]*float32(a.Beta2) + g*g*float32(1-a.Beta2)
		values[i] = values[i]*decay - float32(step)*(a.m[i]/(float32(math.Sqrt(float64(a.v[i]))/root)+float32(a.Eps)))
	}
}

// SGD is p ← p − rate (g + λ p), torch.optim.SGD without momentum.
type SGD struct{ WeightDecay float64 }

func (s *SGD) Step(values, grad []float32, rate float64) {
	for i, g := range grad {
		values[i] -= float32(rate) * (g + float32(s.WeightDecay)*values[i])
	}
}
