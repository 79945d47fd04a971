package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// bowl is the objective Σ (x−1)² for each target, so that the mean over any targets is the same. It
// counts its calls.
type bowl struct {
	forests int
	spoil   int // the call that returns NaN, from 1
}

func (b *bowl) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	b.forests++
	per := len(x) / f.Prompts // values of a virtual token
	nll := make([]float32, len(f.Targets))
	for _, s := range f.Segments {
		if s.Parent >= 0 {
			continue
		}
		for t, target := range f.Targets {
			if promptOf(f, target.Row) != s.Row {
				continue
			}
			for i := s.Row * per; i < (s.Row+s.Len)*per; i++ {
				nll[t] += (x[i] - 1) * (x[i] - 1)
				grad[i] += 2 * (x[i] - 1)
			}
		}
	}
	if b.forests == b.spoil {
		nll[0] = float32(math.NaN())
	}
	return nll, nil
}

// promptOf returns the first row of the soft prompt above a row.
func promptOf(f *batch.Forest, row int) int {
	for _, s := range f.Segments {
		if row >= s.Row && row < s.Row+s.Len {
			for s.Parent >= 0 {
				s = f.Segments[s.Parent]
			}
			return s.Row
		}
	}
	return -1
}

func examples(n int) []batch.Example {
	var out []batch.Example
	for i := range n {
		out = append(out, batch.Example{IDs: []int32{1, int32(i), 2}, From: 1})
	}
	return out
}

func config() Config {
	return Config{
		Steps: 100, BatchSize: 4, PackedTokens: 100, VirtualTokens: 1,
		Optimizer:    OptimizerConfig{Name: "adamw", Betas: [2]float64{0.9, 0.999}},
		LearningRate: 0.1, Schedule: "linear", Warmup: 0.1, ClipNorm: 1, EvalEvery: 10,
		Order: func(int) []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9} },
	}
}

// events keeps the events of a run.
type events struct {
	steps []report.Step
	evals []report.Eval
}

func (e *events) tell(x report.Event) {
	switch x := x.(type) {
	case report.Step:
		e.steps = append(e.steps, x)
	case report.Eval:
		e.evals = append(e.evals, x)
	}
}

func TestARunFindsTheBottomOfABowl(t *testing.T) {
	for _, optimizer := range Optimizers() {
		c, e, obj := config(), &events{}, &bowl{}
		c.Optimizer.Name = optimizer
		x := []float32{3, -2}
		job := Job{Config: c, Values: x, Examples: examples(10), Tell: e.tell}
		r, err := Run(context.Background(), obj, job)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range r.Best {
			if !(math.Abs(float64(v)-1) <= 0.05) {
				t.Errorf("%s: best is %v, want ones", optimizer, r.Best)
			}
		}
		if r.Steps != 100 || r.BestStep != 100 || r.StopReason != StopSteps || len(e.steps) != 100 {
			t.Errorf("%s: result is %+v with %d step events", optimizer, r, len(e.steps))
		}
		s := e.steps[0]
		if !(math.Abs(float64(s.Loss)-13) <= 1e-6) ||
			!(math.Abs(float64(s.GradNorm)-math.Sqrt(16+36)) <= 1e-5) ||
			s.TargetTokens != 8 || s.Tokens != 12 || s.Epoch != 1 {
			t.Errorf("%s: first step is %+v", optimizer, s)
		}
		if s := e.steps[2]; s.TargetTokens != 4 || e.steps[3].Epoch != 2 { // ten rows are 4, 4, 2
			t.Errorf("%s: the epoch's last batch is %+v", optimizer, s)
		}
	}
}

func TestPackedBatchesOfAnySizeGiveTheSameStep(t *testing.T) {
	var want []float32
	for _, tokens := range []int{1, 7, 1000} {
		c, obj := config(), &bowl{}
		c.Steps, c.PackedTokens = 5, tokens
		x := []float32{3, -2}
		job := Job{Config: c, Values: x, Examples: examples(10), Tell: (&events{}).tell}
		r, err := Run(context.Background(), obj, job)
		if err != nil {
			t.Fatal(err)
		}
		x = r.Best
		if want == nil {
			want = x
			if obj.forests != 4+4+2+4+4 {
				t.Errorf("%d forests, want one for each row", obj.forests)
			}
		}
		for i := range x {
			if !(math.Abs(float64(x[i]-want[i])) <= 1e-6) {
				t.Errorf("with %d tokens the values are %v, want %v", tokens, x, want)
			}
		}
	}
}

func TestABatchIsSplitIntoPartsOfEqualSize(t *testing.T) {
	for _, c := range []struct{ rows, limit, parts, largest int }{ // rows of three tokens
		{8, 24, 1, 8}, {8, 23, 2, 4}, {9, 21, 2, 5}, {8, 7, 4, 2}, {8, 3, 8, 1}, {3, 1, 3, 1},
		{8, math.MaxInt, 1, 8},
	} {
		run := config()
		run.BatchSize, run.PackedTokens = c.rows, c.limit
		parts, largest := 0, 0
		for step, f := range PackedBatches(run, examples(10)) {
			if step > 0 {
				break
			}
			parts++
			largest = max(largest, f.Rows()-run.VirtualTokens)
		}
		if want := 2 * c.largest; parts != c.parts || largest != want { // a text's last token has no row
			t.Errorf("%d rows, at most %d tokens: %d parts of up to %d rows, want %d of %d",
				c.rows, c.limit, parts, largest, c.parts, want)
		}
	}
}

func TestAPackedBatchHasAtMostPackedTokens(t *testing.T) {
	for _, c := range []struct {
		lengths []int // of the rows
		want    []int // tokens of each batch, at most 10
	}{
		{[]int{4, 7}, []int{4, 7}}, {[]int{4, 6}, []int{10}}, {[]int{1, 9, 1}, []int{10, 1}},
		{[]int{12, 2}, []int{12, 2}},
	} {
		run := config()
		run.PackedTokens, run.BatchSize = 10, len(c.lengths)
		run.Order = func(int) (order []int) {
			for i := range c.lengths {
				order = append(order, i)
			}
			return order
		}
		var rows []batch.Example
		for i, n := range c.lengths { // each begins with another token
			rows = append(rows, batch.Example{IDs: slices.Repeat([]int32{int32(i)}, n), From: n - 1})
		}
		var got []int
		for step, f := range PackedBatches(run, rows) {
			if step > 0 {
				break
			}
			got = append(got, f.Rows()-run.VirtualTokens+len(f.Targets)) // a text's last token has no row
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("rows of %v tokens: batches of %v, want %v", c.lengths, got, c.want)
		}
	}
}

func TestPackedBatchesAreThoseOfTheStepsInTheFirstEpoch(t *testing.T) {
	for steps, want := range map[int]int{1: 1, 3: 3, 100: 5} { // an epoch has five
		run, got := config(), 0
		run.Steps, run.BatchSize = steps, 2
		for step := range PackedBatches(run, examples(10)) {
			got = step + 1
		}
		if got != want {
			t.Errorf("a run of %d steps has packed batches for %d, want %d", steps, got, want)
		}
	}
}

func TestTheBestIsKeptAndPatienceEndsTheRun(t *testing.T) {
	c, e := config(), &events{}
	c.EvalEvery, c.Patience = 2, 3
	losses := []float64{5, 4, 3, math.NaN(), 3.5, 3, 1, 1, 1}
	var at [][]float32
	evaluate := func(_ context.Context, x []float32) ([]report.Eval, error) {
		at = append(at, slices.Clone(x))
		l := losses[len(at)-1]
		return []report.Eval{
			{Set: "a", Loss: report.Number(l - 1)}, {Set: "b", Loss: report.Number(l + 1)},
		}, nil
	}
	job := Job{Config: c, Values: []float32{3, -2}, Examples: examples(10), Evaluate: evaluate,
		Tell: e.tell}
	r, err := Run(context.Background(), &bowl{}, job)
	if err != nil {
		t.Fatal(err)
	}
	if r.StopReason != StopPatience || r.Steps != 10 || r.BestStep != 4 ||
		!slices.Equal(r.Best, at[2]) || r.Valid[1].Loss != 4 || r.Loss != 3 {
		t.Errorf("result is %+v, want the values of step 4, stopped at step 10", r)
	}
	if len(e.evals) != 12 || !e.evals[4].Best || e.evals[6].Best {
		t.Errorf("evaluation events: %+v", e.evals)
	}
}

// A run that diverges ends as well. Its best is what was evaluated.
func TestDoneIsCalledAtTheEndUnlessTheRunWasInterruptedOrFailed(t *testing.T) {
	lost := errors.New("the disk is full")
	for reason, called := range map[string]bool{
		StopSteps: true, StopPatience: true, StopDiverged: true, StopInterrupted: false, StopFailed: false,
	} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		c, obj, n := config(), &bowl{}, 0
		c.Steps, c.EvalEvery = 6, 6
		job := Job{Values: []float32{3}, Examples: examples(10), Tell: func(e report.Event) {
			if s, ok := e.(report.Step); ok && s.Step == 4 && reason == StopInterrupted {
				cancel()
			}
		}}
		job.Evaluate = func(context.Context, []float32) ([]report.Eval, error) {
			if n++; n > 1 && reason == StopFailed {
				return nil, lost
			}
			return []report.Eval{{Loss: 1}}, nil
		}
		switch reason {
		case StopPatience:
			c.EvalEvery, c.Patience, c.MinGain = 2, 1, 0.1
		case StopDiverged:
			obj.spoil = 4
		}
		job.Config = c
		var done *Result
		job.Done = func(r *Result) error {
			done = r
			return lost
		}
		r, err := Run(ctx, obj, job)
		if r.StopReason != reason || (done != nil) != called || called && (done != r || !errors.Is(err, lost)) {
			t.Errorf("%s: the run ended with %s, Done got %v, error %v", reason, r.StopReason, done, err)
		}
		if r.BestStep != 0 {
			t.Errorf("%s: the best is of step %d, want that of the only evaluation, 0", reason, r.BestStep)
		}
	}
}

func TestAStateIsSavedAtEvaluationsAndAfterSomeTime(t *testing.T) {
	saves := 0
	job := Job{Config: config(), Values: []float32{3}, Examples: examples(10), Tell: (&events{}).tell}
	job.Steps, job.EvalEvery = 25, 10
	job.Save = func(*State) error {
		saves++
		return nil
	}
	if _, err := Run(context.Background(), &bowl{}, job); err != nil || saves != 3 { // at 10, 20 and 25
		t.Errorf("a run of 25 steps was saved %d times (%v), want 3", saves, err)
	}
	r, err := newRun(job, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.result.Steps, saves = 1, 0
	for _, c := range []struct {
		ago  time.Duration
		want int
	}{{saveEvery - 5*time.Second, 0}, {saveEvery + time.Second, 1}, {0, 1}} {
		if c.ago > 0 {
			r.saved = time.Now().Add(-c.ago)
		}
		if r.afterStep(context.Background()); saves != c.want {
			t.Errorf("%s after the last save: %d saves, want %d", c.ago, saves, c.want)
		}
	}
}

// A prompt may become a million times as long as at the start, or as one.
func TestAPromptThatGrowsAMillionfoldHasDiverged(t *testing.T) {
	for _, c := range []struct {
		start float32
		rate  float64 // the gradient is 2 (start − 1)
		ok    bool
	}{{11, 4e5, true}, {11, 6e5, false}, {0.5, 9e5, true}, {0.5, 1.1e6, false}} {
		job := Job{Config: config(), Values: []float32{c.start}, Examples: examples(10), Tell: (&events{}).tell}
		job.Steps, job.Schedule, job.Warmup, job.ClipNorm, job.Optimizer.Name = 1, "constant", 0, 0, "sgd"
		job.LearningRate = c.rate
		if _, err := Run(context.Background(), &bowl{}, job); (err == nil) != c.ok || err != nil &&
			!errors.Is(err, ErrDiverged) {
			t.Errorf("%+v: error is %v", c, err)
		}
	}
}

func TestANaNLossEndsTheRunWithTheBestSoFar(t *testing.T) {
	c := config()
	x := []float32{3, -2}
	job := Job{Config: c, Values: x, Examples: examples(10), Tell: (&events{}).tell}
	r, err := Run(context.Background(), &bowl{spoil: 13}, job)
	if !errors.Is(err, ErrDiverged) || r.StopReason != StopDiverged || r.Steps != 12 ||
		r.BestStep != 11 {
		t.Errorf("result is %+v (%v), want divergence at step 13", r, err)
	}
}

func TestAFailedRunReturnsItsErrorAndItsBest(t *testing.T) {
	broken, n := errors.New("the file is gone"), 0
	evaluate := func(context.Context, []float32) ([]report.Eval, error) {
		if n++; n == 3 {
			return nil, broken
		}
		return []report.Eval{{Loss: report.Number(9 - n)}}, nil
	}
	job := Job{Config: config(), Values: []float32{3}, Examples: examples(10), Evaluate: evaluate,
		Tell: (&events{}).tell}
	r, err := Run(context.Background(), &bowl{}, job)
	if !errors.Is(err, broken) || r.StopReason != StopFailed || r.Steps != 20 || r.BestStep != 10 {
		t.Errorf("result is %+v (%v)", r, err)
	}
}

func TestAnInterruptedRunReturnsItsBest(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	tell := func(e report.Event) {
		if s, ok := e.(report.Step); ok && s.Step == 25 {
			cancel()
		}
	}
	r, err := Run(ctx, &bowl{}, Job{Config: config(), Values: []float32{3}, Examples: examples(10),
		Tell: tell})
	if !errors.Is(err, context.Canceled) || r.StopReason != StopInterrupted || r.Steps != 25 ||
		r.BestStep != 20 {
		t.Errorf("result is %+v (%v)", r, err)
	}
}

func TestSchedulesRiseStayAndFall(t *testing.T) {
	cosine := func(eighths float64) float64 { return (1 - math.Cos(eighths*math.Pi/8)) / 2 }
	for name, want := range map[string][]float64{
		"constant": {0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"linear":   {0.5, 1, 1, 7. / 8, 6. / 8, 5. / 8, 4. / 8, 3. / 8, 2. / 8, 1. / 8},
		"cosine": {0.5, 1, 1, cosine(7), cosine(6), cosine(5), cosine(4), cosine(3), cosine(2),
			cosine(1)},
	} {
		for i, w := range want {
			if got, err := schedule(name, 0.2, i+1, 10); err != nil || !(math.Abs(got-w) <= 1e-12) {
				t.Errorf("%s at step %d is %g (%v), want %g", name, i+1, got, err, w)
			}
		}
	}
	if got, _ := schedule("constant", 0, 1, 10); got != 1 {
		t.Errorf("constant without warm-up starts at %g", got)
	}
}

func TestAStepReportsHowFarThePromptMovedAndEachTokensGradient(t *testing.T) {
	c, e := config(), &events{}
	c.Steps, c.Optimizer.Name, c.Schedule = 2, "sgd", "constant"
	c.Warmup, c.ClipNorm, c.VirtualTokens = 0, 5, 2
	job := Job{Config: c, Values: []float32{4, 5}, Examples: examples(4), Tell: e.tell}
	if _, err := Run(context.Background(), &bowl{}, job); err != nil {
		t.Fatal(err)
	}
	// The gradient of step 1 is (6, 8), clipped to half of that; that of step 2 is (5.4, 7.2).
	first, second := e.steps[0], e.steps[1]
	near := func(what string, got report.Number, want float64) {
		t.Helper()
		if !(math.Abs(float64(got)-want) <= 1e-5) {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	near("token 1's gradient", first.TokenNorms[0], 6)
	near("token 2's gradient", first.TokenNorms[1], 8)
	near("the first update", first.UpdateRatio, 0.5/math.Hypot(4, 5))
	near("the drift", first.Drift, 0.5)
	near("the second update", second.UpdateRatio, 0.5/math.Hypot(3.7, 4.6))
	near("the drift", second.Drift, 1)
}

// hill is a loss that rises by one with each call.
type hill struct{ step int }

func (h *hill) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	h.step++
	grad[0] += float32(len(f.Targets))
	return slices.Repeat([]float32{float32(h.step)}, len(f.Targets)), nil
}

func TestALossThatStaysFarAboveTheFirstEndsTheRunWithTheLastGoodPrompt(t *testing.T) {
	c := config()
	c.Optimizer.Name, c.Schedule, c.Warmup, c.ClipNorm, c.EvalEvery = "sgd", "constant", 0, 0, 3
	job := Job{Config: c, Values: []float32{0}, Examples: examples(4), Tell: (&events{}).tell}
	r, err := Run(context.Background(), &hill{}, job)
	if !errors.Is(err, ErrDiverged) || r.StopReason != StopDiverged {
		t.Fatalf("%+v (%v), want a run that diverged", r, err)
	}
	// The first loss is 1, so the limit is 6. Step 7 is the first above it, step 26 the twentieth.
	want := "at step 26: the loss has been above 6 for 20 steps (it began at 1, now it is 26): "
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error is %q, want one that contains %q", err, want)
	}
	if r.BestStep != 5 || !(math.Abs(float64(r.Best[0])+0.5) <= 1e-6) {
		t.Errorf("the best values are %v, of step %d, want -0.5 of step 5", r.Best, r.BestStep)
	}
}

func TestTheBestPromptIsChosenByTheMetricAskedFor(t *testing.T) {
	losses, accuracies := []report.Number{5, 4, 3, 6, 7, 8}, []float64{0.1, 0.5, 0.2, 0.9, 0.9, 0.3}
	for by, want := range map[string]int{"": 20, BestLoss: 20, BestAccuracy: 30, BestExactMatch: 10} {
		n, accuracies := 0, accuracies
		evaluate := func(context.Context, []float32) ([]report.Eval, error) {
			match := 1 - accuracies[n] // the highest at first, then at steps 10 and 20 as patience has it
			if n == 0 {
				match = 0
			}
			n++
			return []report.Eval{{Loss: losses[n-1], Accuracy: &accuracies[n-1], ExactMatch: &match}}, nil
		}
		if by == BestExactMatch {
			accuracies = []float64{0, 0.1, 0.5, 0.6, 0.7, 0.8}
		}
		c := config()
		c.Steps, c.Best = 50, by
		var best []int
		job := Job{Config: c, Values: []float32{3}, Examples: examples(10), Evaluate: evaluate,
			Tell: func(e report.Event) {
				if e, ok := e.(report.Eval); ok && e.Best {
					best = append(best, e.Step)
					if known := by == "" || by == BestLoss; known && e.BestBy != "" || !known && e.BestBy != by {
						t.Errorf("by %q: the event says %q", by, e.BestBy)
					}
				}
			}}
		got, err := Run(context.Background(), &bowl{}, job)
		if err != nil || got.BestStep != want || best[len(best)-1] != want {
			t.Errorf("by %q: the best is of step %d, told of %v (%v); want step %d", by, got.BestStep, best,
				err, want)
		}
	}
}

// Lower is better, so what should be high is negated.
func TestTheScoreIsTheMeanOverTheSets(t *testing.T) {
	half, most, least := 0.5, 0.75, 0.25
	evals := []report.Eval{{Loss: 1, Accuracy: &half, MacroF1: &least}, {Loss: 2, Accuracy: &most}}
	for by, want := range map[string]float64{
		"": 1.5, BestLoss: 1.5, BestAccuracy: -0.625, BestMacroF1: 1.5, BestExactMatch: 1.5, // not measured: the loss
	} {
		if got := (Config{Best: by}).score(evals); got != want {
			t.Errorf("by %q: score %g, want %g", by, got, want)
		}
	}
}

// An objective whose pass ends because the context has.
type stopped struct{ cancel func() }

func (s stopped) LossGrad([]float32, *batch.Forest, []float32) ([]float32, error) {
	s.cancel()
	return nil, errors.New("stopped")
}

func TestAPassThatEndsWithTheContextIsAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var saved *State
	job := Job{Config: config(), Values: []float32{3}, Examples: examples(10),
		Tell: func(report.Event) {}, Save: func(s *State) error { saved = s; return nil }}
	got, err := Run(ctx, stopped{cancel}, job)
	if !errors.Is(err, context.Canceled) || got.StopReason != StopInterrupted || saved == nil || saved.Step != 0 {
		t.Errorf("error is %v, reason %s, state %v; want an interruption and a saved state", err,
			got.StopReason, saved)
	}
}
