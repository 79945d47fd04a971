package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ptune/internal/report"
)

// saveEvery is the longest time between saves. It is checked after each step, so a killed run loses at
// most this and one step.
const saveEvery = 30 * time.Second

// run is a job in progress.
type run struct {
	Job
	number int // among the jobs
	result *Result
	params *parameters

	order   []int   // of the rows in the current epoch
	epoch   int     // the current one, from 1
	loss    float64 // summed over the targets that the step has seen so far
	targets int     // their number

	evaluated int     // the last step that was evaluated; -1: none yet
	worse     int     // evaluations since the last better one
	toBeat    float64 // the score of that one; lower is better
	divergence
	stuck   stuck
	saved   time.Time
	earlier float64 // seconds of earlier attempts
	done    bool
	err     error
}

func newRun(job Job, number int) (*run, error) {
	r := &run{
		Job: job, number: number,
		result:    &Result{StopReason: StopFailed, Best: slices.Clone(job.Values), Loss: math.Inf(1)},
		evaluated: -1, toBeat: math.Inf(1), saved: time.Now(),
	}
	if job.Params != nil {
		r.AnchorAt = nil // the anchor is a prompt's
	}
	if r.Began.IsZero() {
		r.Began = time.Now()
	}
	var err error
	if r.params, err = newParameters(job); err == nil && job.From != nil {
		err = r.restore(job.From)
	}
	return r, err
}

// start evaluates the initial prompt, or what was due when the state was saved. Parameters of the
// model are not evaluated at first: they are the base itself, which need not be saved. Nor is a prompt
// with Config.NoFirstEval.
func (r *run) start(ctx context.Context) {
	switch {
	case r.Halved:
		r.finish(StopHalved, nil)
	case r.result.Steps == 0 && r.Params != nil:
	case r.result.Steps == 0 && r.NoFirstEval && r.Evaluate != nil && r.evaluated < 0:
	case r.result.Steps == 0 && r.evaluated < 0:
		if err := r.evaluate(ctx); err != nil {
			r.fail(ctx, err)
		}
	default:
		r.afterStep(ctx)
	}
}

// finish ends the run.
func (r *run) finish(reason string, err error) {
	r.done, r.result.StopReason, r.result.Seconds = true, reason, r.seconds()
	if r.Done != nil && reason != StopInterrupted && reason != StopFailed {
		err = errors.Join(err, r.Done(r.result))
	}
	r.err = err
}

// seconds returns the time that the run has taken, over all attempts.
func (r *run) seconds() float64 { return r.earlier + time.Since(r.Began).Seconds() }

// diverge ends the run with the best prompt that was evaluated. If none was, the best is the last
// one whose loss was finite and not far above the first.
func (r *run) diverge(err error) {
	if (r.Evaluate == nil || r.evaluated < 0) && r.good != nil {
		r.result.Best, r.result.BestStep = r.good, r.goodStep
	}
	r.finish(StopDiverged, err)
}

// fail ends the run with an error. If the context has ended, that is an interruption.
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

// rows returns the rows of the next step.
func (r *run) rows() []int {
	epoch, from, to := r.place(r.result.Steps, len(r.Examples))
	if r.epoch != epoch+1 {
		r.order, r.epoch = r.Order(epoch), epoch+1
	}
	return r.order[from:to]
}

// clearSums sets the step's sums to zero.
func (r *run) clearSums() {
	r.loss, r.targets = 0, 0
	for _, sum := range r.params.sums() {
		clear(sum)
	}
}

// step updates the parameters with the gradient that was summed over the step's targets. It
// reports the step, and evaluates, saves and ends the run when it is time to.
func (r *run) step(ctx context.Context, begin time.Time) {
	rate, err := r.rate(r.result.Steps + 1)
	if err != nil {
		r.fail(ctx, err)
		return
	}
	e := r.meanGradient()
	e.LearningRate = rate
	if err := r.check(e, r.params.prompt); err != nil {
		r.diverge(err)
		return
	}
	if err := r.update(&e); err != nil {
		r.diverge(err)
		return
	}
	r.result.Steps = e.Step
	e.Seconds = time.Since(begin).Seconds()
	r.Tell(e)
	if stuck := r.stuck.check(e, r.GuessLoss); stuck != nil {
		r.Tell(*stuck)
	}
	r.afterStep(ctx)
}

// meanGradient divides the sums by the step's targets, adds the anchor's gradient and computes that
// of the parameters. It returns the step's event up to there.
func (r *run) meanGradient() report.Step {
	e := report.Step{
		Step: r.result.Steps + 1, Of: r.Steps, TargetTokens: r.targets,
		Loss: report.Number(r.loss / float64(r.targets)),
	}
	for _, i := range r.rows() {
		e.Tokens += len(r.Examples[i].IDs)
	}
	e.Epoch = r.epoch
	p := r.params
	for _, sum := range p.sums() {
		for i := range sum {
			sum[i] /= float32(r.targets)
		}
	}
	for i, at := range r.AnchorAt { // wayward prompting (Khashabi et al. 2022)
		p.grad[i] += float32(2 * r.Anchor / float64(r.VirtualTokens) * float64(p.prompt[i]-at))
	}
	e.GradNorm, e.PromptNorm = report.Number(p.backward()), report.Number(norm(p.prompt))
	if p.prompt != nil {
		for row := range slices.Chunk(p.grad, len(p.grad)/r.VirtualTokens) {
			e.TokenNorms = append(e.TokenNorms, report.Number(norm(row)))
		}
	}
	return e
}

// penalty returns what the anchor adds to the loss.
func (r *run) penalty() float64 {
	if r.AnchorAt == nil {
		return 0
	}
	d := distance(r.params.prompt, r.AnchorAt)
	return r.Anchor / float64(r.VirtualTokens) * d * d
}

// update lets the optimizer change the parameters. It adds to e how far a prompt moved, and fails
// if the prompt or the optimizer's moments are not finite. Parameters of the model are not searched
// after each step, which would be one more pass over all of them: the next loss shows it.
func (r *run) update(e *report.Step) error {
	p := r.params
	before := slices.Clone(p.prompt)
	most := math.Inf(1)
	if r.MaxDecrease > 0 {
		most = r.MaxDecrease * (float64(e.Loss) + r.penalty())
	}
	p.update(e.LearningRate, r.clip(float64(e.GradNorm)), most)
	if p.prompt == nil {
		return nil
	}
	length := norm(p.prompt)
	if !finite(length) || !p.finite() {
		return fmt.Errorf("%w at step %d: %s; after it values or moments are not finite",
			ErrDiverged, e.Step, numbers(*e))
	}
	if first := max(1, norm(r.Values)); length > mostGrowth*first {
		return fmt.Errorf("%w at step %d: %s; after it the prompt's norm is %.3g, at the start it was %.3g",
			ErrDiverged, e.Step, numbers(*e), length, norm(r.Values))
	}
	e.UpdateRatio = report.Number(distance(p.prompt, before) / norm(before))
	e.PromptNorm, e.Drift = report.Number(length), report.Number(distance(p.prompt, r.Values))
	return nil
}

// afterStep evaluates and saves if that is due after the steps so far, and ends the run if it has
// taken all steps or run out of patience.
func (r *run) afterStep(ctx context.Context) {
	s := r.result.Steps
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

// evaluate measures the current values and keeps them if they are the best.
func (r *run) evaluate(ctx context.Context) error {
	s := r.result.Steps
	if r.Evaluate == nil {
		r.evaluated = s
		return r.keep()
	}
	evals, err := r.Evaluate(ctx, r.params.prompt)
	if err != nil {
		return err
	}
	mean, score := meanLoss(evals), r.score(evals)
	best := r.better(mean, score)
	if best {
		r.result.Valid, r.result.Loss = evals, mean
		if err := r.keep(); err != nil {
			return err
		}
	}
	// Without a least gain, an equal score with a lower loss is better, too.
	gain := r.toBeat - score
	if best && (math.IsInf(r.toBeat, 1) || gain > r.MinGain || gain == 0 && r.MinGain == 0) {
		r.toBeat, r.worse = score, 0
	} else {
		r.worse++
	}
	for _, e := range evals {
		e.Step, e.Best = s, best
		if r.Config.Best != BestLoss {
			e.BestBy = r.Config.Best
		}
		r.Tell(e)
	}
	r.evaluated = s
	return nil
}

// better reports whether values with that mean loss and score are better than the best so far. NaN is
// never better.
func (r *run) better(mean, score float64) bool {
	if math.IsNaN(mean) {
		return false // its labels are chosen by chance, so its accuracy means nothing
	}
	if r.result.Valid == nil || r.Config.Best == "" || r.Config.Best == BestLoss {
		return mean < r.result.Loss
	}
	before := r.score(r.result.Valid)
	return score < before || score == before && mean < r.result.Loss
}

// keep makes the current values the best.
func (r *run) keep() error {
	copy(r.result.Best, r.params.prompt)
	r.result.BestStep = r.result.Steps
	if r.Best == nil {
		return nil
	}
	return r.Best()
}

// meanLoss returns the mean over the evaluated sets.
func meanLoss(evals []report.Eval) float64 {
	mean := 0.0
	for _, e := range evals {
		mean += float64(e.Loss) / float64(len(evals))
	}
	return mean
}
