package train

import (
	"fmt"
	"math"
)

// Schedules returns the task file's names of the schedules.
func Schedules() []string { return []string{"constant", "linear", "cosine"} }

// schedule returns the factor on the learning rate at step s (from 1) of n. It rises over the first
// warmup·n steps; then it stays (constant) or falls to zero, evenly (linear) or along half a cosine.
func schedule(name string, warmup float64, s, n int) (float64, error) {
	w := int(math.Ceil(warmup * float64(n)))
	if s <= w {
		return float64(s) / float64(w), nil
	}
	left := float64(n-s+1) / float64(n-w) // 1 at the first step after the warm-up
	switch name {
	case "constant":
		return 1, nil
	case "linear":
		return left, nil
	case "cosine":
		return (1 - math.Cos(math.Pi*left)) / 2, nil
	}
	return 0, fmt.Errorf("there is no schedule %q", name)
}
