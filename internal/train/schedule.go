package train

import (
	"fmt"
	"math"
)

// Schedules lists the schedules by the names of the task file.
func Schedules() []string { return []string{"constant", "linear", "cosine"} }

// schedule gives the factor on the learning rate at step s (from 1) of n: it rises over the first warmup·n steps, then stays
// (constant), falls to zero evenly (linear) or along half a cosine (cosine).
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
