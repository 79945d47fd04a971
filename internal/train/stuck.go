package train

import "ptune/internal/report"

// A run is stuck if its gradient norm is below stuckShare of the largest so far and its loss is above
// Config.GuessLoss for stuckSteps in a row, both as running means. A run that learns also ends with
// small gradients, but with a lower loss.
const (
	stuckShare = 0.01
	stuckSteps = 20
	runningOld = 0.8 // the weight of the earlier steps in a running mean
)

// stuck watches for a run whose gradient has vanished before it learned to use the inputs.
type stuck struct {
	largest    float64 // gradient norm of a step
	grad, loss float64 // running means of the gradient norm and of the loss
	steps      int     // in a row for which the run has been stuck
}

// check returns the event to report at the step at which the run has been stuck for long enough; later
// steps report nothing until the run has learned something in between. guess is Config.GuessLoss.
func (s *stuck) check(e report.Step, guess float64) *report.Stuck {
	if guess == 0 {
		return nil
	}
	grad, loss := float64(e.GradNorm), float64(e.Loss)
	if s.largest == 0 {
		s.grad, s.loss = grad, loss
	}
	s.largest = max(s.largest, grad)
	s.grad += (1 - runningOld) * (grad - s.grad)
	s.loss += (1 - runningOld) * (loss - s.loss)
	if s.grad >= stuckShare*s.largest || s.loss <= guess {
		s.steps = 0
		return nil
	}
	if s.steps++; s.steps != stuckSteps {
		return nil
	}
	return &report.Stuck{
		Step: e.Step, Loss: report.Number(s.loss), GuessLoss: report.Number(guess),
		GradNorm: report.Number(s.grad), LargestGradNorm: report.Number(s.largest),
	}
}
