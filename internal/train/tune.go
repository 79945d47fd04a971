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
	var opts []Optimizer
	for _, v := range t.Values {
		o, err := NewOptimizer(t.Optimizer, 1, len(v))
		if err != nil {
			return 0, err
		}
		opts = append(opts, o)
	}
	lowest, worse := math.Inf(1), 0
	perEpoch := (len(t.Examples) + t.BatchSize - 1) / t.BatchSize
	var order []int
	for s := 1; s <= t.Steps; s++ {
		if ctx.Err() != nil {
			return s - 1, context.Cause(ctx)
		}
		begin := time.Now()
		place := (s - 1) % perEpoch
		if place == 0 {
			order = t.Order((s - 1) / perEpoch)
		}
		rows := order[place*t.BatchSize : min(len(order), (place+1)*t.BatchSize)]
		loss, targets, err := t.gradient(rows)
		if err != nil {
			return s - 1, err
		}
		square := 0.0
		for _, g := range t.Grads {
			n := norm(g)
			square += n * n
		}
		length := math.Sqrt(square)
		factor, err := schedule(t.Schedule, t.Warmup, s, t.Steps)
		if err != nil {
			return s - 1, err
		}
		if !finite(loss) || !finite(length) {
			return s - 1, fmt.Errorf("%w at step %d: loss %g, gradient norm %g, learning rate %g", ErrDiverged, s, loss, length, t.LearningRate*factor)
		}
		shrink := float32(1)
		if t.ClipNorm > 0 && length > t.ClipNorm {
			shrink = float32(t.ClipNorm / (length + 1e-6))
		}
		for i, g := range t.Grads {
			for k := range g {
				g[k] *= shrink
			}
			opts[i].Step(t.Values[i], g, t.LearningRate*factor)
		}
		t.Tell(report.Step{Step: s, Of: t.Steps, Epoch: (s-1)/perEpoch + 1, Loss: report.Number(loss), LearningRate: t.LearningRate * factor,
			GradNorm: report.Number(length), TargetTokens: targets, Seconds: time.Since(begin).Seconds()})
		if s%t.EvalEvery != 0 && s != t.Steps {
			continue
		}
		evals, err := t.Evaluate(ctx)
		if err != nil {
			return s, err
		}
		mean := 0.0
		for _, e := range evals {
			mean += float64(e.Loss) / float64(len(evals))
		}
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
