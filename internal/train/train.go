// Package train is the loop: it asks an objective for loss and gradient, steps the optimizer, evaluates now and then, keeps
// the best values and knows when to stop. It knows neither models nor files nor terminals.
package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// Objective is what is minimised.
type Objective interface {
	// LossGrad is the summed −log p of the forest's targets; scale times its gradient is added to grad.
	LossGrad(values []float32, f *batch.Forest, scale float64, grad []float32) (float64, error)
}

// Evaluate measures values on the validation sets. The mean of the losses decides which values are best.
type Evaluate func(ctx context.Context, values []float32) ([]report.Eval, error)

// Config is how a run goes.
type Config struct {
	Steps            int
	BatchSize        int
	MicroBatchTokens int // the most tokens of text that are computed at a time
	VirtualTokens    int
	Optimizer        OptimizerConfig
	LearningRate     float64
	Schedule         string
	Warmup           float64
	ClipNorm         float64 // 0: off
	EvalEvery        int
	Patience         int                   // evaluations without a better loss; 0: no end
	Order            func(epoch int) []int // the order of the examples
}

// Why a run stopped.
const (
	StopSteps       = "steps"
	StopPatience    = "patience"
	StopInterrupted = "interrupted"
	StopDiverged    = "diverged"
	StopFailed      = "failed"
)

// Result is what a run found.
type Result struct {
	Steps, BestStep int
	StopReason      string
	Best            []float32     // the values at BestStep
	Valid           []report.Eval // the evaluation at BestStep
}

// ErrDiverged is wrapped by the error of a run whose loss or gradient is no number any more.
var ErrDiverged = errors.New("training diverged")

// Run trains values in place on the examples. Where there is something to evaluate, the best values are those of the lowest
// validation loss, the start among them; otherwise the last. The result is valid beside an error: the best so far.
func Run(ctx context.Context, c Config, obj Objective, values []float32, examples []batch.Example, evaluate Evaluate, tell report.Func) (*Result, error) {
	opt, err := NewOptimizer(c.Optimizer, c.VirtualTokens, len(values)/c.VirtualTokens)
	if err != nil {
		return nil, err
	}
	r := &Result{StopReason: StopFailed, Best: slices.Clone(values)}
	keep := keeper{c: c, r: r, evaluate: evaluate, tell: tell, lowest: math.Inf(1)}
	if _, err := keep.check(ctx, values, 0); err != nil {
		return r, interrupted(ctx, r, err)
	}
	perEpoch := (len(examples) + c.BatchSize - 1) / c.BatchSize
	grad, before, start := make([]float32, len(values)), make([]float32, len(values)), slices.Clone(values)
	var order []int
	var away runaway
	for s := 1; s <= c.Steps; s++ {
		if ctx.Err() != nil {
			return r, interrupted(ctx, r, ctx.Err())
		}
		begin := time.Now()
		epoch, place := (s-1)/perEpoch, (s-1)%perEpoch
		if place == 0 {
			order = c.Order(epoch)
		}
		rows := order[place*c.BatchSize : min(len(order), (place+1)*c.BatchSize)]
		loss, targets, err := lossGrad(c, obj, values, examples, rows, grad)
		if err != nil {
			return r, err
		}
		factor, err := schedule(c.Schedule, c.Warmup, s, c.Steps)
		if err != nil {
			return r, err
		}
		rate, length := c.LearningRate*factor, norm(grad)
		if !finite(loss) || !finite(length) {
			r.StopReason = StopDiverged
			return r, fmt.Errorf("%w at step %d: loss %g, gradient norm %g, learning rate %g, prompt norm %g", ErrDiverged, s, loss, length, rate, norm(values))
		}
		if away.check(loss, s, values); away.steps == runawaySteps {
			r.StopReason = StopDiverged
			if evaluate == nil {
				r.Best, r.BestStep = away.good, away.goodStep
			}
			return r, fmt.Errorf("%w at step %d: the loss has been above %.3g for %d steps (it began at %.3g, now it is %.3g), gradient norm %g, learning rate %g, prompt norm %g",
				ErrDiverged, s, away.limit, away.steps, away.first, loss, length, rate, norm(values))
		}
		var tokens []report.Number
		for row := range slices.Chunk(grad, len(grad)/c.VirtualTokens) {
			tokens = append(tokens, report.Number(norm(row)))
		}
		if c.ClipNorm > 0 && length > c.ClipNorm { // torch's clip_grad_norm_
			for i := range grad {
				grad[i] *= float32(c.ClipNorm / (length + 1e-6))
			}
		}
		copy(before, values)
		opt.Step(values, grad, rate)
		r.Steps = s
		tell(report.Step{Step: s, Of: c.Steps, Epoch: epoch + 1, Loss: report.Number(loss), LearningRate: rate, GradNorm: report.Number(length),
			PromptNorm: report.Number(norm(values)), UpdateRatio: report.Number(distance(values, before) / norm(before)), Drift: report.Number(distance(values, start)),
			TokenNorms: tokens, TargetTokens: targets, Seconds: time.Since(begin).Seconds()})
		if s%c.EvalEvery == 0 || s == c.Steps {
			stop, err := keep.check(ctx, values, s)
			if err != nil {
				return r, interrupted(ctx, r, err)
			}
			if stop {
				r.StopReason = StopPatience
				return r, nil
			}
		}
	}
	r.StopReason = StopSteps
	return r, nil
}

// runawaySteps is how long a loss may be far above where it began: a bad batch or a long warm-up ends sooner.
const runawaySteps = 20

// runaway watches for a loss that has left for good.
type runaway struct {
	first, limit float64
	steps        int // that the loss has been above the limit, without a break
	good         []float32
	goodStep     int // the step that made good, the last values with a loss below the limit
}

// check takes the loss of values, which is measured before step s. A loss is far off at three times the first one, and five more.
func (r *runaway) check(loss float64, s int, values []float32) {
	if s == 1 {
		r.first, r.limit = loss, max(3*loss, loss+5)
	}
	if loss > r.limit {
		r.steps++
		return
	}
	r.steps, r.good, r.goodStep = 0, append(r.good[:0], values...), s-1
}

// lossGrad is the mean loss over the targets of the rows, with its gradient: the sum over micro-batches, divided once.
func lossGrad(c Config, obj Objective, values []float32, examples []batch.Example, rows []int, grad []float32) (loss float64, targets int, err error) {
	for _, r := range rows {
		targets += len(examples[r].IDs) - examples[r].From
	}
	clear(grad)
	for _, f := range pack(c, examples, rows) {
		nll, err := obj.LossGrad(values, f, 1/float64(targets), grad)
		if err != nil {
			return 0, 0, err
		}
		loss += nll
	}
	return loss / float64(targets), targets, nil
}

// pack cuts rows into forests of at most MicroBatchTokens tokens of text, or one row. Rows are sorted by their text first, so
// that those which begin alike share a forest.
func pack(c Config, examples []batch.Example, rows []int) []*batch.Forest {
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b int) int { return slices.Compare(examples[a].IDs, examples[b].IDs) })
	var forests []*batch.Forest
	var part []batch.Example
	tokens := 0
	for i, r := range sorted {
		part = append(part, examples[r])
		tokens += len(examples[r].IDs)
		if i == len(sorted)-1 || tokens+len(examples[sorted[i+1]].IDs) > c.MicroBatchTokens {
			forests = append(forests, batch.Pack([]int{c.VirtualTokens}, part))
			part, tokens = nil, 0
		}
	}
	return forests
}

// Forests are the micro-batches of the first epoch's steps, counted from 0.
func Forests(c Config, examples []batch.Example) iter.Seq2[int, *batch.Forest] {
	return func(yield func(int, *batch.Forest) bool) {
		step := 0
		for rows := range slices.Chunk(c.Order(0), c.BatchSize) {
			for _, f := range pack(c, examples, rows) {
				if !yield(step, f) {
					return
				}
			}
			step++
		}
	}
}

// keeper evaluates and keeps the best.
type keeper struct {
	c        Config
	r        *Result
	evaluate Evaluate
	tell     report.Func
	lowest   float64
	worse    int // evaluations since the best
}

// check evaluates after step s, and tells whether patience is out.
func (k *keeper) check(ctx context.Context, values []float32, s int) (stop bool, err error) {
	if k.evaluate == nil {
		copy(k.r.Best, values)
		k.r.BestStep = s
		return false, nil
	}
	evals, err := k.evaluate(ctx, values)
	if err != nil {
		return false, err
	}
	mean := 0.0
	for _, e := range evals {
		mean += float64(e.Loss) / float64(len(evals))
	}
	better := mean < k.lowest // false for NaN, which is never best
	if better {
		copy(k.r.Best, values)
		k.r.BestStep, k.r.Valid, k.lowest, k.worse = s, evals, mean, 0
	} else {
		k.worse++
	}
	for _, e := range evals {
		e.Step, e.Best = s, better
		k.tell(e)
	}
	return k.c.Patience > 0 && k.worse >= k.c.Patience, nil
}

// interrupted marks a run that its context ended, and returns what ended it.
func interrupted(ctx context.Context, r *Result, err error) error {
	if ctx.Err() != nil {
		r.StopReason = StopInterrupted
		return context.Cause(ctx)
	}
	return err
}

// norm is the Euclidean length of values.
func norm(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// distance is the length of a − b.
func distance(a, b []float32) float64 {
	var s float64
	for i, v := range a {
		d := float64(v) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
