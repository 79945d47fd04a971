package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// Tuning trains other parameters than a prompt's, for comparisons: with the same rows, batches, schedule and optimizers, without what
// makes a run of hours safe.
type Tuning struct {
	Config
	Values, Grads [][]float32 // the parameters, changed in place
	Examples      []batch.Example
	Grad          func(f *batch.Forest) ([]float32, error)         // −log p of each target; the gradients of their sum are added to Grads
	Evaluate      func(ctx context.Context) ([]report.Eval, error) // the parameters as they are
	Best          func() error                                     // keeps them: they are the best so far
	Tell          report.Func
}

// Tune trains until the steps are done or patience is out, and returns the number of steps.
func Tune(ctx context.Context, t Tuning) (steps int, err error) {
	p := &parameters{make: func() {}}
	for i, v := range t.Values {
		p.blocks = append(p.blocks, &block{rows: 1, cols: len(v), values: v, grad: t.Grads[i]})
	}
	if err := p.optimize(t.Optimizer); err != nil {
		return 0, err
	}
	lowest, worse := math.Inf(1), 0
	var order []int
	for s := 1; s <= t.Steps; s++ {
		if ctx.Err() != nil {
			return s - 1, context.Cause(ctx)
		}
		begin := time.Now()
		epoch, from, to := t.place(s-1, len(t.Examples))
		if from == 0 {
			order = t.Order(epoch)
		}
		loss, targets, err := t.gradient(order[from:to])
		if err != nil {
			return s - 1, err
		}
		length := p.length()
		rate, err := t.rate(s)
		if err != nil {
			return s - 1, err
		}
		if !finite(loss) || !finite(length) {
			return s - 1, fmt.Errorf("%w at step %d: loss %g, gradient norm %g, learning rate %g", ErrDiverged, s, loss, length, rate)
		}
		p.step(rate, t.shrink(length))
		t.Tell(report.Step{Step: s, Of: t.Steps, Epoch: epoch + 1, Loss: report.Number(loss), LearningRate: rate,
			GradNorm: report.Number(length), TargetTokens: targets, Seconds: time.Since(begin).Seconds()})
		if s%t.EvalEvery != 0 && s != t.Steps {
			continue
		}
		evals, err := t.Evaluate(ctx)
		if err != nil {
			return s, err
		}
		mean := meanLoss(evals)
		if worse++; mean < lowest {
			lowest, worse = mean, 0
			if err := t.Best(); err != nil {
				return s, err
			}
		}
		if t.Patience > 0 && worse >= t.Patience {
			return s, nil
		}
	}
	return t.Steps, nil
}

// gradient is the mean loss over the targets of rows, with its gradient.
func (t Tuning) gradient(rows []int) (loss float64, targets int, err error) {
	for _, g := range t.Grads {
		clear(g)
	}
	for part := range cut(t.Config, t.Examples, rows) {
		nll, err := t.Grad(batch.Pack(nil, part))
		if err != nil {
			return 0, 0, err
		}
		for _, v := range nll {
			loss += float64(v)
		}
		targets += len(nll)
	}
	for _, g := range t.Grads {
		for k := range g {
			g[k] /= float32(targets)
		}
	}
	return loss / float64(targets), targets, nil
}
