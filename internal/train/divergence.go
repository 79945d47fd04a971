package train

import (
	"fmt"
	"math"

	"ptune/internal/report"
)

// divergedSteps is how long the loss must be far above the first one before the run ends: a bad
// batch or a long warm-up is over sooner.
const divergedSteps = 20

// mostGrowth is how many times as long as at the start a prompt may become. Trained prompts grow up to a
// hundredfold. A million times is beyond float32's seven digits: ordinary updates no longer change it, and where
// the model normalises its inputs the loss shows nothing.
const mostGrowth = 1e6

// divergence watches for a loss that rises and does not return.
type divergence struct {
	first, limit float64   // the first loss, and the loss above which one is far off
	above        int       // steps since the loss was below the limit
	good         []float32 // the last prompt with a loss below the limit
	goodStep     int       // the step that made it
}

// check returns an error if the loss or gradient of a step is not finite, or if the loss has been
// above the limit, max(3 first, first + 5), for divergedSteps. values is the prompt that has the loss.
func (d *divergence) check(e report.Step, values []float32) error {
	loss := float64(e.Loss)
	if !finite(loss) || !finite(float64(e.GradNorm)) {
		return fmt.Errorf("%w at step %d: %s", ErrDiverged, e.Step, numbers(e))
	}
	if e.Step == 1 {
		d.first, d.limit = loss, max(3*loss, loss+5)
	}
	if loss <= d.limit {
		d.above, d.good, d.goodStep = 0, append(d.good[:0], values...), e.Step-1
		return nil
	}
	if d.above++; d.above < divergedSteps {
		return nil
	}
	return fmt.Errorf("%w at step %d: the loss has been above %.3g for %d steps "+
		"(it began at %.3g, now it is %.3g): %s",
		ErrDiverged, e.Step, d.limit, d.above, d.first, loss, numbers(e))
}

// numbers are those of a step that an error shows.
func numbers(e report.Step) string {
	s := fmt.Sprintf("loss %g, gradient norm %g, learning rate %g",
		float64(e.Loss), float64(e.GradNorm), e.LearningRate)
	if e.TokenNorms != nil {
		s += fmt.Sprintf(", prompt norm %g", float64(e.PromptNorm))
	}
	return s
}

// norm returns the Euclidean norm.
func norm(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// distance returns the Euclidean norm of a − b.
func distance(a, b []float32) float64 {
	var s float64
	for i, v := range a {
		d := float64(v) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
