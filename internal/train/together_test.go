package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"ptune/internal/report"
)

func TestPromptsTrainedTogetherEqualThoseTrainedAlone(t *testing.T) {
	var jobs []Job
	for i, tokens := range []int{1, 2, 1, 3} {
		c := config()
		c.Steps, c.VirtualTokens, c.LearningRate, c.PackedTokens = 20+i, tokens, 0.1*float64(i+1), 30
		if i == 2 {
			c.Order = func(int) []int { return []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0} }
		}
		x := make([]float32, 2*tokens)
		for k := range x {
			x[k] = float32(k - i)
		}
		jobs = append(jobs, Job{Config: c, Values: x, Examples: examples(10), Tell: (&events{}).tell})
	}
	obj := &bowl{}
	together, errs := RunTogether(context.Background(), obj, jobs, Halving{})
	alone := 0
	for i, job := range jobs {
		b := &bowl{}
		want, err := Run(context.Background(), b, job)
		if err != nil || errs[i] != nil {
			t.Fatal(err, errs[i])
		}
		if got := together[i]; !slices.Equal(got.Best, want.Best) || got.Steps != want.Steps {
			t.Errorf("job %d: %v, want %v", i, got, want)
		}
		alone += b.forests
	}
	if obj.forests >= alone {
		t.Errorf("%d packed batches together, %d alone: nothing is shared", obj.forests, alone)
	}
}

// Each job has a batch of four rows of three tokens.
func TestBatchesOfSeveralJobsHaveAtMostPackedTokens(t *testing.T) {
	for limit, want := range map[int]int{36: 1, 35: 2, 24: 2, 23: 3, 12: 3} {
		var jobs []Job
		for range 3 {
			c := config()
			c.PackedTokens = limit
			jobs = append(jobs, Job{Config: c, Examples: examples(10)})
		}
		jobs[1].PackedTokens++ // the least counts
		if got := len(FirstBatches(jobs)); got != want {
			t.Errorf("at most %d tokens: %d batches, want %d", limit, got, want)
		}
	}
}

func TestAJobThatFailsLeavesTheOthersRunning(t *testing.T) {
	c := config()
	good := Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Tell: (&events{}).tell}
	bad := good
	bad.Values, bad.VirtualTokens = []float32{float32(math.NaN()), 1}, 1
	results, errs := RunTogether(context.Background(), &bowl{}, []Job{bad, good}, Halving{})
	if !errors.Is(errs[0], ErrDiverged) || results[0].StopReason != StopDiverged {
		t.Errorf("the failing job: result %+v, error %v", results[0], errs[0])
	}
	if errs[1] != nil || results[1].StopReason != StopSteps || results[1].Steps != 100 {
		t.Errorf("the other job: result %+v, error %v", results[1], errs[1])
	}
}

func TestHalvingKeepsTheBest(t *testing.T) {
	var jobs []Job
	for i := range 5 {
		c := config()
		c.EvalEvery, c.LearningRate = 5, 1e-9
		level := report.Number([]float64{3, 1, 2, 5, 4}[i])
		job := Job{Config: c, Values: []float32{1, 2}, Examples: examples(10), Tell: (&events{}).tell}
		job.Evaluate = func(context.Context, []float32) ([]report.Eval, error) {
			return []report.Eval{{Loss: level}}, nil
		}
		jobs = append(jobs, job)
	}
	results, _ := RunTogether(context.Background(), &bowl{}, jobs, Halving{Keep: 2, At: []int{10, 20}})
	var steps []int
	for _, r := range results {
		steps = append(steps, r.Steps)
	}
	if want := []int{20, 100, 100, 10, 10}; !slices.Equal(steps, want) {
		t.Errorf("the jobs made %v steps, want %v", steps, want)
	}
	if results[3].StopReason != StopHalved {
		t.Errorf("the worst run stopped because of %q", results[3].StopReason)
	}
}

func TestPatienceCountsGainsAboveMinGainAndTheBestIsTheLowestLoss(t *testing.T) {
	losses := []float64{5, 4.9, 4.8, 4.7, 4.68, 1}
	job := Job{Config: config(), Values: []float32{3}, Examples: examples(10), Tell: (&events{}).tell}
	job.EvalEvery, job.Patience, job.MinGain = 1, 2, 0.15
	n := 0
	job.Evaluate = func(context.Context, []float32) ([]report.Eval, error) {
		n++
		return []report.Eval{{Loss: report.Number(losses[n-1])}}, nil
	}
	// After a loss of 5, 4.9 is no gain and 4.8 is one. After 4.8, 4.7 and 4.68 are none.
	r, err := Run(context.Background(), &bowl{}, job)
	if err != nil || r.Steps != 4 || r.BestStep != 4 || r.Loss != 4.68 {
		t.Errorf("%+v (%v), want the best of step 4, after 4 steps", r, err)
	}
}

func TestAGainOfNoMoreThanMinGainIsNone(t *testing.T) {
	for _, c := range []struct {
		least  float64
		losses []float64
		steps  int // until an evaluation has no gain
	}{
		{0.5, []float64{5, 4.5}, 1}, {0.5, []float64{5, 4.25, 4}, 2}, {0.5, []float64{5, 4.25, 3.5, 3}, 3},
		{0, []float64{5, 4, 4}, 2}, {0, []float64{5, 4, 3, 3.5}, 3},
	} {
		job := Job{Config: config(), Values: []float32{3}, Examples: examples(10), Tell: (&events{}).tell}
		job.EvalEvery, job.Patience, job.MinGain = 1, 1, c.least
		n := 0
		job.Evaluate = func(context.Context, []float32) ([]report.Eval, error) {
			n++
			return []report.Eval{{Loss: report.Number(c.losses[n-1])}}, nil
		}
		if r, err := Run(context.Background(), &bowl{}, job); err != nil || r.Steps != c.steps {
			t.Errorf("%+v: stopped after %d steps (%v)", c, r.Steps, err)
		}
	}
}

func TestAnAnchorPullsThePrompt(t *testing.T) {
	at := func(anchor float64, tokens int) float32 {
		c := config()
		c.VirtualTokens = tokens
		c.Steps, c.LearningRate, c.Schedule, c.Optimizer.Name, c.ClipNorm = 500, 0.05, "constant",
			"sgd", 0
		c.Anchor, c.AnchorAt = anchor, []float32{-1, -1}
		if anchor == 0 {
			c.AnchorAt = nil
		}
		job := Job{Config: c, Values: []float32{0, 0}, Examples: examples(10), Tell: (&events{}).tell}
		r, err := Run(context.Background(), &bowl{}, job)
		if err != nil {
			t.Fatal(err)
		}
		return r.Best[0]
	}
	// (x−1)² + γ (x+1)² is smallest at (1−γ)/(1+γ). Of two virtual tokens, γ counts half.
	for tokens, wants := range map[int]map[float64]float32{1: {0: 1, 1: 0, 3: -0.5}, 2: {2: 0, 6: -0.5}} {
		for anchor, want := range wants {
			if got := at(anchor, tokens); !(math.Abs(float64(got-want)) <= 1e-3) {
				t.Errorf("%d virtual tokens, anchor %g: the prompt ends at %g, want %g", tokens, anchor, got, want)
			}
		}
	}
}

func TestReparametrisationsAreDrawnAsInTheirPapers(t *testing.T) {
	const dim, width = 400, 100
	c := config()
	c.VirtualTokens, c.Width, c.Reparametrise = 1, width, residualMLP
	p, err := newParameters(Job{Config: c, Values: make([]float32, dim)})
	if err != nil {
		t.Fatal(err)
	}
	// W and b, as in torch's Linear: uniform within one over the root of the inputs.
	for _, b := range p.blocks[1:3] {
		const bound = 1. / 20
		if most, least := slices.Max(b.values), slices.Min(b.values); most > bound || least < -bound ||
			most < 0.8*bound || least > -0.8*bound {
			t.Errorf("residual: values are from %g to %g, want ±%g", least, most, bound)
		}
	}
	c.Reparametrise = lowRank
	if p, err = newParameters(Job{Config: c, Values: make([]float32, dim)}); err != nil {
		t.Fatal(err)
	}
	p.blocks[0].values[0] = 1 // then the prompt is the first row of A, whose values have a variance of 1/width
	p.compute()
	if deviation := norm(p.prompt) / math.Sqrt(dim); !(math.Abs(deviation-0.1) <= 0.015) {
		t.Errorf("low-rank: A has a standard deviation of %g, want 0.1", deviation)
	}
}

func TestGradientsOfReparametrizationsEqualFiniteDifferences(t *testing.T) {
	start := []float32{0.3, -0.2, 0.5, 0.1, -0.4, 0.2}
	weight := []float32{1, -2, 0.5, 3, -1, 0.25} // the loss is Σ weight·values
	for _, name := range Reparametrisations() {
		c := config()
		c.VirtualTokens, c.Reparametrise, c.Width, c.Seed = 2, name, 4, 3
		p, err := newParameters(Job{Config: c, Values: start})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range p.prompt {
			if v != start[i] {
				t.Errorf("%s starts at %v, want %v", name, p.prompt, start)
				break
			}
		}
		for b, block := range p.blocks { // zeros have zero gradients
			for i := range block.values {
				block.values[i] += float32(i%3-1)*0.2 + float32(b)*0.05
			}
		}
		p.compute()
		copy(p.grad, weight)
		p.backward()
		loss := func() (sum float64) {
			p.compute()
			for i, v := range p.prompt {
				sum += float64(weight[i]) * float64(v)
			}
			return sum
		}
		for b, block := range p.blocks {
			for i, v := range block.values {
				const h = 1e-3
				block.values[i] = v + h
				up := loss()
				block.values[i] = v - h
				slope := (up - loss()) / (2 * h)
				block.values[i] = v
				if !(math.Abs(slope-float64(block.grad[i])) <= 1e-3*(1+math.Abs(slope))) {
					t.Errorf("%s, block %d, value %d: gradient %g, finite difference %g", name, b,
						i, block.grad[i],
						slope)
				}
			}
		}
	}
}
