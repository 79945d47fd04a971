// Package train is the training loop. It asks an Objective for loss and gradient, lets an optimizer
// change the parameters, evaluates them, keeps the best and decides when to stop. It knows neither
// models nor prompt files nor terminals.
package train

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"ptune/internal/batch"
	"ptune/internal/param"
	"ptune/internal/report"
)

// Objective is what is minimised.
type Objective interface {
	// LossGrad returns −log p of each target of f and adds the gradient of their sum to grad.
	// values and grad [P, D] are the soft prompts of f, one after the other. If parameters
	// of the model are trained, both are nil and the gradients are added to param.Tensor.Grad.
	// The result is valid until the next call.
	LossGrad(values []float32, f *batch.Forest, grad []float32) ([]float32, error)
}

// Evaluate measures a soft prompt on the validation sets; values is nil where parameters of the
// model are trained. Config.Best says which of its results is the best.
type Evaluate func(ctx context.Context, values []float32) ([]report.Eval, error)

// Config is how a run trains.
type Config struct {
	Steps         int
	BatchSize     int // rows of a step
	PackedTokens  int // the most tokens of text in a packed batch
	VirtualTokens int // P
	Optimizer     OptimizerConfig
	Reparametrise string  // one of Reparametrisations
	Width         int     // of the reparametrisation
	Anchor        float64 // γ of the penalty γ |values − AnchorAt|² / VirtualTokens; 0: none
	AnchorAt      []float32
	LearningRate  float64
	Schedule      string
	Warmup        float64               // share of the steps
	ClipNorm      float64               // the longest gradient; 0: any
	MaxDecrease   float64               // the largest predicted decrease of the loss, as a share of it; 0: any
	EvalEvery     int                   // steps
	NoFirstEval   bool                  // leave out the evaluation before the first step
	Patience      int                   // evaluations without a better one until it stops; 0: any number
	MinGain       float64               // what is better by no more than this is not better
	GuessLoss     float64               // Stuck is told of a loss above this one; 0: never
	Best          string                // one of BestBy, the metric by which a prompt is the best; empty: loss
	Seed          uint64                // of the reparametrisation
	Order         func(epoch int) []int // the order of the rows in an epoch
}

// What the best prompt is chosen by.
const (
	BestLoss       = "loss"
	BestAccuracy   = "accuracy"
	BestMacroF1    = "macro_f1"
	BestExactMatch = "exact_match"
)

// BestBy returns the metrics by which the best prompt can be chosen.
func BestBy() []string { return []string{BestLoss, BestAccuracy, BestMacroF1, BestExactMatch} }

// score returns the mean of Config.Best over the evaluated sets, negated if higher is better.
func (c Config) score(evals []report.Eval) float64 {
	sum := 0.0
	for _, e := range evals {
		v := map[string]*float64{
			BestAccuracy: e.Accuracy, BestMacroF1: e.MacroF1, BestExactMatch: e.ExactMatch,
		}[c.Best]
		if v == nil {
			return meanLoss(evals)
		}
		sum -= *v
	}
	return sum / float64(len(evals))
}

// rate returns the learning rate of step s, from 1.
func (c Config) rate(s int) (float64, error) {
	factor, err := schedule(c.Schedule, c.Warmup, s, c.Steps)
	return c.LearningRate * factor, err
}

// clip returns the factor of a gradient with this norm, that of torch's clip_grad_norm_.
func (c Config) clip(norm float64) float64 {
	if c.ClipNorm == 0 {
		return 1
	}
	return min(1, c.ClipNorm/(norm+1e-6))
}

// place returns the epoch, from 0, and the range from <= i < to of its order that step steps+1 reads.
func (c Config) place(steps, rows int) (epoch, from, to int) {
	perEpoch := (rows + c.BatchSize - 1) / c.BatchSize
	epoch, from = steps/perEpoch, steps%perEpoch*c.BatchSize
	return epoch, from, min(rows, from+c.BatchSize)
}

// Job is one run: what is trained, on which rows, and the functions it calls. It trains a soft
// prompt, or parameters of the model in place.
type Job struct {
	Config
	Values   []float32       // the initial soft prompt [VirtualTokens, D]; not changed
	Params   []*param.Tensor // what is trained in place; nil: a soft prompt
	Examples []batch.Example
	Evaluate Evaluate    // nil: the last values are the best
	Tell     report.Func // told of steps and evaluations
	From     *State      // where to resume; nil: start at step 0
	Began    time.Time   // when the work on this run began, for Result.Seconds; zero: with RunTogether
	Halved   bool        // Halving ended this job before the restart: only make its result

	// These may be nil.
	Best func() error        // called when the current values are the best so far
	Save func(*State) error  // saves a state: at evaluations, every saveEvery and on interruption
	Done func(*Result) error // called at the end, unless the run was interrupted or failed
}

// promptRows returns the virtual tokens of the job's soft prompt as batch.Pack takes them.
func (j *Job) promptRows() []int {
	if j.Params != nil {
		return nil
	}
	return []int{j.VirtualTokens}
}

// Why a run stopped.
const (
	StopSteps       = "steps"
	StopPatience    = "patience"
	StopHalved      = "halved" // Halving ended it
	StopInterrupted = "interrupted"
	StopDiverged    = "diverged"
	StopFailed      = "failed"
)

// Result is what a run found.
type Result struct {
	Steps, BestStep int
	StopReason      string
	Best            []float32     // the soft prompt after BestStep
	Loss            float64       // the mean of the validation losses after BestStep; +Inf without evaluations
	Valid           []report.Eval // the evaluations after BestStep

	// Seconds is the time that the run took, over all attempts. Of an attempt that was killed it has the
	// time until its last state was saved.
	Seconds float64
}

// ErrDiverged is wrapped by the error of a run whose loss or values are no longer finite, or whose
// loss stays far above the first one.
var ErrDiverged = errors.New("training diverged")

// Run trains one job. The best values are those of the best evaluation by Config.Best, that before the
// first step included; without evaluations they are the last. With an error the result is the best so
// far.
func Run(ctx context.Context, obj Objective, job Job) (*Result, error) {
	results, errs := RunTogether(ctx, obj, []Job{job}, Halving{})
	return results[0], errs[0]
}

// RunTogether trains several soft prompts on one base in lockstep, so that their rows share the
// passes over its weights. Each result is the one the job has alone; a job that fails leaves the
// others running.
func RunTogether(ctx context.Context, obj Objective, jobs []Job, h Halving) ([]*Result, []error) {
	runs := make([]*run, len(jobs))
	for i, job := range jobs {
		r, err := newRun(job, i)
		if job.Params != nil && len(jobs) > 1 {
			err = errors.New("parameters of the model are trained in a run of their own")
		}
		if runs[i] = r; err != nil {
			r.finish(StopFailed, err)
		} else {
			r.start(ctx)
		}
	}
	for {
		live := slices.DeleteFunc(slices.Clone(runs), func(r *run) bool { return r.done })
		if len(live) == 0 {
			break
		}
		if ctx.Err() != nil {
			for _, r := range live {
				r.fail(ctx, ctx.Err())
			}
			break
		}
		stepTogether(ctx, obj, furthestBehind(live))
		h.halve(ctx, runs)
	}
	results, errs := make([]*Result, len(jobs)), make([]error, len(jobs))
	for i, r := range runs {
		results[i], errs[i] = r.result, r.err
	}
	return results, errs
}

// furthestBehind returns the runs with the fewest steps: resumed runs may be a few steps apart.
func furthestBehind(runs []*run) []*run {
	least := runs[0].result.Steps
	for _, r := range runs {
		least = min(least, r.result.Steps)
	}
	return slices.DeleteFunc(runs, func(r *run) bool { return r.result.Steps > least })
}

// stepTogether takes one step of each run.
func stepTogether(ctx context.Context, obj Objective, runs []*run) {
	begin := time.Now()
	for _, r := range runs {
		r.clearSums()
	}
	for _, p := range packTogether(runs) {
		if err := p.lossGrad(obj); err != nil {
			for _, r := range p.runs {
				r.fail(ctx, err)
			}
		}
	}
	for _, r := range runs {
		if !r.done {
			r.step(ctx, begin)
		}
	}
}

// Halving shortens a sweep by successive halving. When all live jobs have reached a step in At, the
// best 1/Keep of them (rounded up) continue: those whose best values have the lowest loss, and of equal ones
// the earlier jobs.
type Halving struct {
	Keep int
	At   []int
	Tell func(step int, halved []int) error // called with the jobs that will end; nil: not called
}

// halve ends the worst runs if all live ones have reached one of the steps.
func (h Halving) halve(ctx context.Context, runs []*run) {
	ranked := slices.DeleteFunc(slices.Clone(runs), func(r *run) bool { return r.done })
	if len(ranked) == 0 || !slices.Contains(h.At, ranked[0].result.Steps) {
		return
	}
	step := ranked[0].result.Steps
	if slices.ContainsFunc(ranked, func(r *run) bool { return r.result.Steps != step }) {
		return
	}
	keep := (len(ranked) + h.Keep - 1) / h.Keep
	slices.SortStableFunc(ranked, func(a, b *run) int {
		return cmp.Compare(a.result.Loss, b.result.Loss)
	})
	var halved []int
	for _, r := range ranked[keep:] {
		halved = append(halved, r.number)
	}
	if h.Tell != nil {
		if err := h.Tell(step, halved); err != nil {
			for _, r := range ranked {
				r.fail(ctx, err)
			}
			return
		}
	}
	for _, r := range ranked[keep:] {
		r.finish(StopHalved, nil)
	}
}
