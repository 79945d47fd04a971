// Package train is the loop: it asks an objective for loss and gradient, steps the optimizer, evaluates now and then, keeps
// the best values and knows when to stop. It knows neither models nor files nor terminals.
package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// Objective is what is minimised.
type Objective interface {
	// LossGrad is −log p of each of the forest's targets; the gradient of their sum is added to grad. values and grad hold the forest's
	// soft prompts, one behind the other. The result is valid until the next call.
	LossGrad(values []float32, f *batch.Forest, grad []float32) ([]float32, error)
}

// Evaluate measures values on the validation sets. The mean of the losses decides which values are best.
type Evaluate func(ctx context.Context, values []float32) ([]report.Eval, error)

// Config is how a run goes.
type Config struct {
	Steps         int
	BatchSize     int
	ForestTokens  int // the most tokens of text in a forest
	VirtualTokens int
	Optimizer     OptimizerConfig
	Reparametrise string  // what is trained instead of the values themselves, one of Reparametrisations
	Width         int     // of the reparametrisation
	Anchor        float64 // γ of γ |values − AnchorAt|² / VirtualTokens, which is added to what is minimised; 0: nothing
	AnchorAt      []float32
	LearningRate  float64
	Schedule      string
	Warmup        float64
	ClipNorm      float64 // 0: off
	EvalEvery     int
	Patience      int                   // evaluations without a better loss; 0: no end
	MinGain       float64               // how much lower a loss must be to be better for Patience
	Seed          uint64                // of the reparametrisation
	Order         func(epoch int) []int // the order of the examples
}

// Job is one prompt to train.
type Job struct {
	Config
	Values   []float32 // where the prompt begins, [VirtualTokens, D]; not changed
	Examples []batch.Example
	Evaluate Evaluate // nil: the last values are the best
	Tell     report.Func
	From     *State              // where to go on; nil: at the beginning
	Halved   bool                // it was cut by Halving where From is: it only gives its result
	Done     func(*Result) error // told of the result when it is there, but not of an interruption; nil: nobody
	Save     func(*State) error  // keeps a state to go on from: after each evaluation, now and then, and where the run is interrupted; nil: not kept
}

// rate is the learning rate of step s, from 1.
func (c Config) rate(s int) (float64, error) {
	factor, err := schedule(c.Schedule, c.Warmup, s, c.Steps)
	return c.LearningRate * factor, err
}

// shrink is what a gradient of that length is multiplied by, as torch's clip_grad_norm_ does.
func (c Config) shrink(length float64) float64 {
	if c.ClipNorm > 0 && length > c.ClipNorm {
		return c.ClipNorm / (length + 1e-6)
	}
	return 1
}

// place is where in the examples' order the step behind so many stands: its epoch, from 0, and its rows from <= i < to.
func (c Config) place(steps, examples int) (epoch, from, to int) {
	perEpoch := (examples + c.BatchSize - 1) / c.BatchSize
	epoch, from = steps/perEpoch, steps%perEpoch*c.BatchSize
	return epoch, from, min(examples, from+c.BatchSize)
}

// meanLoss is over the sets that were evaluated.
func meanLoss(evals []report.Eval) float64 {
	mean := 0.0
	for _, e := range evals {
		mean += float64(e.Loss) / float64(len(evals))
	}
	return mean
}

// Why a run stopped.
const (
	StopSteps       = "steps"
	StopPatience    = "patience"
	StopHalved      = "halved" // others of the same sweep were better
	StopInterrupted = "interrupted"
	StopDiverged    = "diverged"
	StopFailed      = "failed"
)

// Result is what a run found.
type Result struct {
	Steps, BestStep int
	StopReason      string
	Best            []float32     // the values at BestStep
	Loss            float64       // the lowest mean of the validation losses; infinite where there were none
	Valid           []report.Eval // the evaluation at BestStep
}

// ErrDiverged is wrapped by the error of a run whose loss or gradient is no number any more.
var ErrDiverged = errors.New("training diverged")

// Run trains one prompt. Where there is something to evaluate, the best values are those of the lowest validation loss, the start
// among them; otherwise the last. The result is valid beside an error: the best so far.
func Run(ctx context.Context, obj Objective, job Job) (*Result, error) {
	results, errs := Together(ctx, obj, []Job{job}, Halving{})
	return results[0], errs[0]
}

// run is a job under way.
type run struct {
	Job
	r         *Result
	p         *parameters
	grad      []float32 // of the values, summed over the step's targets so far
	loss      float64   // summed alike
	order     []int
	orderOf   int     // the epoch whose order it is, from 1
	evaluated int     // the last step that was evaluated, -1 before the first
	worse     int     // evaluations since the last that was better by MinGain
	mark      float64 // the loss of that one
	away      runaway
	saved     time.Time
	err       error
	done      bool
	number    int // among the jobs
}

func newRun(job Job) (*run, error) {
	r := &run{Job: job, r: &Result{StopReason: StopFailed, Best: slices.Clone(job.Values), Loss: math.Inf(1)}, grad: make([]float32, len(job.Values)),
		evaluated: -1, mark: math.Inf(1), saved: time.Now()}
	var err error
	if r.p, err = newParameters(job.Config, job.Values); err == nil && job.From != nil {
		err = r.restore(job.From)
	}
	return r, err
}

// finish ends the run.
func (r *run) finish(reason string, err error) {
	r.done, r.r.StopReason = true, reason
	if r.Done != nil && reason != StopInterrupted {
		err = errors.Join(err, r.Done(r.r))
	}
	r.err = err
}

// diverge ends the run with the best prompt of those that were evaluated, or with the last one whose loss was a number and not far off.
func (r *run) diverge(format string, args ...any) {
	if r.Evaluate == nil && r.away.Good != nil {
		r.r.Best, r.r.BestStep = r.away.Good, r.away.GoodStep
	}
	r.finish(StopDiverged, fmt.Errorf(format, args...))
}

// fail ends the run by an error, which may be that its context has ended.
func (r *run) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.finish(StopFailed, err)
		return
	}
	err = context.Cause(ctx)
	if r.Save != nil {
		err = errors.Join(err, r.Save(r.state()))
	}
	r.finish(StopInterrupted, err)
}

// rows are the examples of the next step.
func (r *run) rows() []int {
	epoch, from, to := r.place(r.r.Steps, len(r.Examples))
	if r.orderOf != epoch+1 {
		r.order, r.orderOf = r.Order(epoch), epoch+1
	}
	return r.order[from:to]
}

// clear makes ready for the sums of a step.
func (r *run) clear() {
	clear(r.grad)
	r.loss = 0
}

// step changes the values by the summed gradient, and evaluates where it is time to.
func (r *run) step(ctx context.Context, begin time.Time) {
	s, targets, all := r.r.Steps+1, 0, 0
	for _, i := range r.rows() {
		targets += len(r.Examples[i].IDs) - r.Examples[i].From
		all += len(r.Examples[i].IDs)
	}
	loss := r.loss / float64(targets)
	for i := range r.grad {
		r.grad[i] /= float32(targets)
	}
	rate, err := r.rate(s)
	if err != nil {
		r.fail(ctx, err)
		return
	}
	values := r.p.values
	for i, at := range r.AnchorAt { // wayward prompting (Khashabi et al. 2022)
		r.grad[i] += float32(2 * r.Anchor / float64(r.VirtualTokens) * float64(values[i]-at))
	}
	length := r.p.gradient(r.grad)
	if !finite(loss) || !finite(length) {
		r.diverge("%w at step %d: loss %g, gradient norm %g, learning rate %g, prompt norm %g", ErrDiverged, s, loss, length, rate, norm(values))
		return
	}
	if r.away.check(loss, s, values); r.away.Steps == runawaySteps {
		r.diverge("%w at step %d: the loss has been above %.3g for %d steps (it began at %.3g, now it is %.3g), gradient norm %g, learning rate %g, prompt norm %g",
			ErrDiverged, s, r.away.Limit, r.away.Steps, r.away.First, loss, length, rate, norm(values))
		return
	}
	var tokens []report.Number
	for row := range slices.Chunk(r.grad, len(r.grad)/r.VirtualTokens) {
		tokens = append(tokens, report.Number(norm(row)))
	}
	before := slices.Clone(values)
	if r.p.step(rate, r.shrink(length)); !finite(norm(values)) || !r.p.sound() {
		r.diverge("%w at step %d: loss %g, gradient norm %g, learning rate %g, prompt norm %g, and after it values or moments that are no numbers", ErrDiverged, s, loss, length, rate, norm(before))
		return
	}
	r.r.Steps = s
	r.Tell(report.Step{Step: s, Of: r.Steps, Epoch: r.orderOf, Loss: report.Number(loss), LearningRate: rate, GradNorm: report.Number(length),
		PromptNorm: report.Number(norm(values)), UpdateRatio: report.Number(distance(values, before) / norm(before)), Drift: report.Number(distance(values, r.Values)),
		TokenNorms: tokens, TargetTokens: targets, Tokens: all, Seconds: time.Since(begin).Seconds()})
	r.check(ctx)
}

// saveEvery is how much work a killed run may lose.
const saveEvery = 30 * time.Second

// check evaluates if that is due after the steps so far, and ends the run where there is nothing more to do.
func (r *run) check(ctx context.Context) {
	s := r.r.Steps
	due := s%r.EvalEvery == 0 || s >= r.Steps
	if due && r.evaluated < s {
		if err := r.evaluate(ctx); err != nil {
			r.fail(ctx, err)
			return
		}
	}
	if r.Save != nil && (due || time.Since(r.saved) > saveEvery) {
		if err := r.Save(r.state()); err != nil {
			r.finish(StopFailed, err)
			return
		}
		r.saved = time.Now()
	}
	switch {
	case due && r.Patience > 0 && r.worse >= r.Patience:
		r.finish(StopPatience, nil)
	case s >= r.Steps:
		r.finish(StopSteps, nil)
	}
}

// evaluate measures the values and keeps them if they are the best.
func (r *run) evaluate(ctx context.Context) error {
	s := r.r.Steps
	if r.Evaluate == nil {
		copy(r.r.Best, r.p.values)
		r.r.BestStep, r.evaluated = s, s
		return nil
	}
	evals, err := r.Evaluate(ctx, r.p.values)
	if err != nil {
		return err
	}
	mean := meanLoss(evals)
	better := mean < r.r.Loss // false for NaN, which is never best
	if better {
		copy(r.r.Best, r.p.values)
		r.r.BestStep, r.r.Valid, r.r.Loss = s, evals, mean
	}
	if better && (math.IsInf(r.mark, 1) || r.mark-mean > r.MinGain) {
		r.mark, r.worse = mean, 0
	} else {
		r.worse++
	}
	for _, e := range evals {
		e.Step, e.Best = s, better
		r.Tell(e)
	}
	r.evaluated = s
	return nil
}

// runawaySteps is how long a loss may be far above where it began: a bad batch or a long warm-up ends sooner.
const runawaySteps = 20

// runaway watches for a loss that has left for good.
type runaway struct {
	First, Limit float64
	Steps        int // that the loss has been above the limit, without a break
	Good         []float32
	GoodStep     int // the step that made Good, the last values with a loss below the limit
}

// check takes the loss of values, which is measured before step s. A loss is far off at three times the first one, and five more.
func (r *runaway) check(loss float64, s int, values []float32) {
	if s == 1 {
		r.First, r.Limit = loss, max(3*loss, loss+5)
	}
	if loss > r.Limit {
		r.Steps++
		return
	}
	r.Steps, r.Good, r.GoodStep = 0, append(r.Good[:0], values...), s-1
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
