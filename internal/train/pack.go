package train

import (
	"iter"
	"math"
	"slices"

	"ptune/internal/batch"
)

// packed is a packed batch: rows of one run or of several.
type packed struct {
	runs   []*run
	forest *batch.Forest
	runOf  []int // of each example, the index in runs
}

// lossGrad adds the batch's loss and gradient to the sums of its runs.
func (p *packed) lossGrad(obj Objective) error {
	if len(p.runs) == 1 {
		r := p.runs[0]
		nll, err := obj.LossGrad(r.params.prompt, p.forest, r.params.grad)
		for _, v := range nll {
			r.loss += float64(v)
		}
		r.targets += len(nll)
		return err
	}
	var values []float32
	for _, r := range p.runs {
		values = append(values, r.params.prompt...)
	}
	grad := make([]float32, len(values))
	nll, err := obj.LossGrad(values, p.forest, grad)
	if err != nil {
		return err
	}
	for i, v := range nll {
		r := p.runs[p.runOf[p.forest.Targets[i].Of]]
		r.loss += float64(v)
		r.targets++
	}
	for _, r := range p.runs {
		sum := r.params.grad
		for i := range sum {
			sum[i] += grad[i]
		}
		grad = grad[len(sum):]
	}
	return nil
}

// packTogether returns the packed batches of the next step of all runs: those that each run has
// alone, put together as far as the smallest PackedTokens allows.
func packTogether(runs []*run) []*packed {
	limit := math.MaxInt
	for _, r := range runs {
		limit = min(limit, r.PackedTokens)
	}
	var all []*packed
	var prompts []int
	var examples []batch.Example
	var p *packed
	tokens := 0
	flush := func() {
		if p != nil {
			p.forest = batch.Pack(prompts, examples)
			all = append(all, p)
		}
		p, prompts, examples, tokens = nil, nil, nil, 0
	}
	for _, r := range runs {
		for chunk := range rowChunks(r.Config, r.Examples, r.rows()) {
			n := 0
			for _, e := range chunk {
				n += len(e.IDs)
			}
			if p != nil && (tokens+n > limit || p.runs[len(p.runs)-1] == r) {
				flush()
			}
			if p == nil {
				p = &packed{}
			}
			for _, e := range chunk {
				e.Prompt = len(p.runs)
				examples, p.runOf = append(examples, e), append(p.runOf, len(p.runs))
			}
			p.runs, prompts = append(p.runs, r), append(prompts, r.promptRows()...)
			tokens += n
		}
	}
	flush()
	return all
}

// rowChunks yields rows in chunks of at most PackedTokens tokens of text, or of one row. The chunks
// have about the same size, because the largest decides how much memory is needed. Rows are sorted
// by text first, so that rows with a shared prefix are in one chunk.
func rowChunks(c Config, examples []batch.Example, rows []int) iter.Seq[[]batch.Example] {
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b int) int {
		return slices.Compare(examples[a].IDs, examples[b].IDs)
	})
	all := 0
	for _, r := range rows {
		all += len(examples[r].IDs)
	}
	chunks := (all-1)/c.PackedTokens + 1
	return func(yield func([]batch.Example) bool) {
		var chunk []batch.Example
		tokens := 0
		for i, r := range sorted {
			chunk = append(chunk, examples[r])
			tokens += len(examples[r].IDs)
			last := i == len(sorted)-1
			if last || tokens*chunks >= all || tokens+len(examples[sorted[i+1]].IDs) > c.PackedTokens {
				if !yield(chunk) {
					return
				}
				chunk, tokens = nil, 0
			}
		}
	}
}

// FirstBatches returns the packed batches of the first step of jobs that are trained together.
func FirstBatches(jobs []Job) []*batch.Forest {
	var runs []*run
	for _, job := range jobs {
		runs = append(runs, &run{Job: job, result: &Result{}})
	}
	var forests []*batch.Forest
	for _, p := range packTogether(runs) {
		forests = append(forests, p.forest)
	}
	return forests
}

// PackedBatches yields the packed batches that one run takes of the first epoch, each with its step,
// from 0.
func PackedBatches(c Config, examples []batch.Example) iter.Seq2[int, *batch.Forest] {
	return func(yield func(int, *batch.Forest) bool) {
		step := 0
		for rows := range slices.Chunk(c.Order(0), c.BatchSize) {
			if step == c.Steps {
				return
			}
			for chunk := range rowChunks(c, examples, rows) {
				if !yield(step, batch.Pack([]int{c.VirtualTokens}, chunk)) {
					return
				}
			}
			step++
		}
	}
}
