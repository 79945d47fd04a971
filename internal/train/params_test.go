package train

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/param"
	"ptune/internal/report"
)

// inner has the loss of wavy, but the objective holds the parameters itself.
type inner struct {
	wavy
	params []*param.Tensor
}

func (o *inner) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	if x != nil || grad != nil || f.Prompts != 0 {
		return nil, fmt.Errorf("a soft prompt of %d values (gradient %d) in %d rows", len(x), len(grad),
			f.Prompts)
	}
	var values, sum []float32
	for _, p := range o.params {
		values, sum = append(values, p.Values...), append(sum, p.Grad...)
	}
	nll, err := o.wavy.LossGrad(values, f, sum)
	for _, p := range o.params {
		sum = sum[copy(p.Grad, sum):]
	}
	return nll, err
}

func TestParametersTrainedInPlaceEqualAPromptOfTheSameValues(t *testing.T) {
	for _, optimizer := range Optimizers() {
		straight, e := &events{}, &events{}
		job := stateJob(optimizer, "off", straight.tell)
		job.Evaluate, job.Patience = nil, 0
		job.VirtualTokens = 1 // one block, as the parameters below are for their optimizer
		want, err := Run(context.Background(), &wavy{}, job)
		if err != nil {
			t.Fatal(err)
		}
		x := param.New("all", 2, 3)
		copy(x.Values, job.Values)
		x.Grad[0] = 99 // of another step
		job.Params, job.Values, job.Tell = []*param.Tensor{x}, nil, e.tell
		got, err := Run(context.Background(), &inner{params: job.Params}, job)
		if err != nil {
			t.Fatal(err)
		}
		if got.Steps != want.Steps || got.BestStep != want.BestStep ||
			!slices.Equal(x.Values, want.Best) {
			t.Errorf("%s: %v after step %d, want %v after step %d",
				optimizer, x.Values, got.Steps, want.Best, want.Steps)
		}
		for i, w := range straight.steps {
			g := e.steps[i]
			if g.Loss != w.Loss || g.GradNorm != w.GradNorm || g.LearningRate != w.LearningRate ||
				g.TargetTokens != w.TargetTokens {
				t.Errorf("%s: step %+v, want %+v", optimizer, g, w)
			}
		}
	}
}

func TestTheBestParametersAreKeptByTheCallerAndTheBaseIsNotEvaluated(t *testing.T) {
	x := param.New("x", 2)
	losses := []float64{5, 3, 4, 6}
	var evaluated, kept []int
	step := 0
	job := Job{Config: config(), Params: []*param.Tensor{x}, Examples: examples(10)}
	job.EvalEvery, job.Patience = 2, 2
	job.Tell = func(e report.Event) {
		if s, ok := e.(report.Step); ok {
			step = s.Step
		}
	}
	job.Evaluate = func(_ context.Context, values []float32) ([]report.Eval, error) {
		if values != nil {
			t.Errorf("step %d: a prompt is evaluated", step)
		}
		evaluated = append(evaluated, step)
		return []report.Eval{{Loss: report.Number(losses[len(evaluated)-1])}}, nil
	}
	job.Best = func() error { kept = append(kept, step); return nil }
	r, err := Run(context.Background(), &inner{params: job.Params}, job)
	if err != nil || r.Steps != 8 || r.BestStep != 4 || r.StopReason != StopPatience {
		t.Errorf("%+v (%v), want the best of step 4, after 8 steps", r, err)
	}
	if !slices.Equal(evaluated, []int{2, 4, 6, 8}) || !slices.Equal(kept, []int{2, 4}) {
		t.Errorf("evaluated after steps %v, kept after %v", evaluated, kept)
	}
}

// flat is a loss of 1 whatever the parameters are.
type flat struct{}

func (flat) LossGrad(_ []float32, f *batch.Forest, _ []float32) ([]float32, error) {
	return slices.Repeat([]float32{1}, len(f.Targets)), nil
}

func TestParametersInPlaceAreNotCopied(t *testing.T) {
	x := param.New("x", 1<<22)
	job := Job{Config: config(), Params: []*param.Tensor{x}, Examples: examples(10),
		Tell: (&events{}).tell}
	job.Steps, job.Optimizer.Name = 3, "sgd"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Run(context.Background(), flat{}, job); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n >= 1<<22 {
		t.Errorf("%d bytes were allocated to train %d values", n, 1<<22)
	}
}

func TestParametersInPlaceAreNotTrainedBesideOtherRuns(t *testing.T) {
	prompt := Job{Config: config(), Values: []float32{3, -2}, Examples: examples(10),
		Tell: (&events{}).tell}
	inPlace := prompt
	inPlace.Values, inPlace.Params = nil, []*param.Tensor{param.New("x", 2)}
	results, errs := RunTogether(context.Background(), &bowl{}, []Job{prompt, inPlace}, Halving{})
	if errs[0] != nil || results[0].Steps != 100 {
		t.Errorf("the prompt: result %+v, error %v", results[0], errs[0])
	}
	if errs[1] == nil || results[1].StopReason != StopFailed {
		t.Errorf("the parameters in place: result %+v, error %v", results[1], errs[1])
	}
}
