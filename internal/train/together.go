package train

import (
	"cmp"
	"context"
	"iter"
	"math"
	"slices"
	"time"

	"ptune/internal/batch"
)

// Halving cuts a sweep short: of the jobs that are under way after each of the steps At, those with the lowest validation losses
// go on, one in every Keep (rounded up), the first of equals.
type Halving struct {
	Keep int
	At   []int
	Tell func(step int, out []int) error // told which jobs are to end, before they do; nil: nobody
}

// Together trains several prompts in step with each other on one base: their rows share the passes over its weights. Each result is
// that of the job alone. A job that fails ends alone, too.
func Together(ctx context.Context, obj Objective, jobs []Job, h Halving) ([]*Result, []error) {
	results, errs := make([]*Result, len(jobs)), make([]error, len(jobs))
	var live []*run
	all := make([]*run, len(jobs))
	for i, job := range jobs {
		r, err := newRun(job)
		all[i], results[i] = r, r.r
		r.number = i
		switch {
		case err != nil:
			r.finish(StopFailed, err)
		case job.Halved:
			r.finish(StopHalved, nil)
		case r.r.Steps == 0 && r.evaluated < 0:
			if err := r.evaluate(ctx); err != nil {
				r.fail(ctx, err)
			}
		default:
			r.check(ctx)
		}
	}
	for {
		live = live[:0]
		for _, r := range all {
			if !r.done {
				live = append(live, r)
			}
		}
		if len(live) == 0 {
			break
		}
		if ctx.Err() != nil {
			for _, r := range live {
				r.fail(ctx, ctx.Err())
			}
			break
		}
		first := slices.MinFunc(live, func(a, b *run) int { return cmp.Compare(a.r.Steps, b.r.Steps) }).r.Steps
		live = slices.DeleteFunc(live, func(r *run) bool { return r.r.Steps > first }) // jobs that went on from a state may be a few steps apart
		begin := time.Now()
		for _, r := range live {
			r.clear()
		}
		for _, g := range together(live) {
			if err := g.lossGrad(obj); err != nil {
				for _, r := range g.runs {
					r.finish(StopFailed, err)
				}
			}
		}
		for _, r := range live {
			if !r.done {
				r.step(ctx, begin)
			}
		}
		h.cut(ctx, all)
	}
	for i, r := range all {
		errs[i] = r.err
	}
	return results, errs
}

// cut ends the runs that are behind others, once all of them have come to the step.
func (h Halving) cut(ctx context.Context, all []*run) {
	ranked := slices.DeleteFunc(slices.Clone(all), func(r *run) bool { return r.done })
	if len(ranked) == 0 || !slices.Contains(h.At, ranked[0].r.Steps) {
		return
	}
	step := ranked[0].r.Steps
	for _, r := range ranked {
		if r.r.Steps != step {
			return
		}
	}
	keep := (len(ranked) + h.Keep - 1) / h.Keep
	slices.SortStableFunc(ranked, func(a, b *run) int { return cmp.Compare(a.r.Loss, b.r.Loss) })
	var out []int
	for _, r := range ranked[keep:] {
		out = append(out, r.number)
	}
	if h.Tell != nil {
		if err := h.Tell(step, out); err != nil {
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

// group is a micro-batch: rows of one run or several.
type group struct {
	runs   []*run
	forest *batch.Forest
	of     []int // the run in runs of each example
}

// lossGrad adds the forest's loss and gradient to its runs.
func (g *group) lossGrad(obj Objective) error {
	if len(g.runs) == 1 {
		r := g.runs[0]
		nll, err := obj.LossGrad(r.p.values, g.forest, r.grad)
		for _, v := range nll {
			r.loss += float64(v)
		}
		return err
	}
	var values []float32
	for _, r := range g.runs {
		values = append(values, r.p.values...)
	}
	grad := make([]float32, len(values))
	nll, err := obj.LossGrad(values, g.forest, grad)
	if err != nil {
		return err
	}
	for i, v := range nll {
		g.runs[g.of[g.forest.Targets[i].Of]].loss += float64(v)
	}
	for _, r := range g.runs {
		for i := range r.grad {
			r.grad[i] += grad[i]
		}
		grad = grad[len(r.grad):]
	}
	return nil
}

// together are the micro-batches of the next step of all runs: each run's own ones, put together as far as the smallest of their
// ForestTokens allows.
func together(runs []*run) []*group {
	limit := math.MaxInt
	for _, r := range runs {
		limit = min(limit, r.ForestTokens)
	}
	var groups []*group
	var prompts []int
	var examples []batch.Example
	var g *group
	tokens := 0
	flush := func() {
		if g != nil {
			g.forest = batch.Pack(prompts, examples)
			groups = append(groups, g)
		}
		g, prompts, examples, tokens = nil, nil, nil, 0
	}
	for _, r := range runs {
		for part := range cut(r.Config, r.Examples, r.rows()) {
			n := 0
			for _, e := range part {
				n += len(e.IDs)
			}
			if g != nil && (tokens+n > limit || g.runs[len(g.runs)-1] == r) {
				flush()
			}
			if g == nil {
				g = &group{}
			}
			for _, e := range part {
				e.Prompt = len(g.runs)
				examples, g.of = append(examples, e), append(g.of, len(g.runs))
			}
			g.runs, prompts, tokens = append(g.runs, r), append(prompts, r.VirtualTokens), tokens+n
		}
	}
	flush()
	return groups
}

// cut gives rows in parts of at most ForestTokens tokens of text, or one row, about as large as each other: the largest is what takes
// memory. Rows are sorted by their text first, so that those which begin alike share a part.
func cut(c Config, examples []batch.Example, rows []int) iter.Seq[[]batch.Example] {
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b int) int { return slices.Compare(examples[a].IDs, examples[b].IDs) })
	all := 0
	for _, r := range rows {
		all += len(examples[r].IDs)
	}
	parts := (all-1)/c.ForestTokens + 1
	return func(yield func([]batch.Example) bool) {
		var part []batch.Example
		tokens := 0
		for i, r := range sorted {
			part = append(part, examples[r])
			tokens += len(examples[r].IDs)
			if i == len(sorted)-1 || tokens*parts >= all || tokens+len(examples[sorted[i+1]].IDs) > c.ForestTokens {
				if !yield(part) {
					return
				}
				part, tokens = nil, 0
			}
		}
	}
}

// First are the micro-batches of the first step of jobs trained together.
func First(jobs []Job) []*batch.Forest {
	var runs []*run
	for _, job := range jobs {
		runs = append(runs, &run{Job: job, r: &Result{}})
	}
	var forests []*batch.Forest
	for _, g := range together(runs) {
		forests = append(forests, g.forest)
	}
	return forests
}

// Forests are the micro-batches of the steps, counted from 0, that a run alone takes of the first epoch.
func Forests(c Config, examples []batch.Example) iter.Seq2[int, *batch.Forest] {
	return func(yield func(int, *batch.Forest) bool) {
		step := 0
		for rows := range slices.Chunk(c.Order(0), c.BatchSize) {
			if step == c.Steps {
				return
			}
			for part := range cut(c, examples, rows) {
				if !yield(step, batch.Pack([]int{c.VirtualTokens}, part)) {
					return
				}
			}
			step++
		}
	}
}
