package run

import (
	"fmt"
	"io"
	"iter"

	"ptune/internal/base"
	"ptune/internal/batch"
	"ptune/internal/config"
	"ptune/internal/failure"
	"ptune/internal/model"
	"ptune/internal/train"
)

// Plan is how a run computes its steps and what they take, found from its first batches without
// computing anything.
type Plan struct {
	Steps       int     `json:"steps"`
	Tokens      int     `json:"largest_micro_batch_tokens"` // of texts and of prompts, computed at a time
	OldTokens   int     `json:"largest_micro_batch_rows"`   // deprecated: another name of Tokens
	StepFLOPs   float64 `json:"step_flops"`                 // mean; 0 if it was not asked for
	WeightBytes int64   `json:"weight_bytes"`               // mapped from the model's files
	ValueBytes  int64   `json:"value_bytes"`                // activations of a step
	MemoryBytes int64   `json:"memory_bytes"`               // all of it, with the program's own
	Recompute   int     `json:"recompute_layers"`           // layers that the largest micro-batch recomputes

	*Estimate // nil: nothing was measured

	settings settings
}

// Text writes the plan for people.
func (p Plan) Text(to io.Writer) error {
	recomputed := ""
	if p.Recompute > 0 {
		recomputed = fmt.Sprintf(" (%d layers recomputed)", p.Recompute)
	}
	estimate := ""
	if p.Estimate != nil {
		estimate = p.Estimate.Text() + "\n"
	}
	_, err := fmt.Fprintf(to, "%d steps of %.1f GFLOP\nlargest micro-batch: %d tokens\n"+
		"memory: about %d MB: %d MB of weights, %d MB of activations%s\n%s",
		p.Steps, p.StepFLOPs/1e9, p.Tokens,
		p.MemoryBytes>>20, p.WeightBytes>>20, p.ValueBytes>>20, recomputed, estimate)
	return err
}

// settings are how a base computes gradients.
type settings struct {
	partRows  int // tokens computed at a time
	recompute model.Recompute
}

func (s settings) apply(b *base.Base) { b.PartRows, b.Recompute = s.partRows, s.recompute }

// apply makes the base compute as planned.
func (p Plan) apply(b *base.Base) { p.settings.apply(b) }

// plannedSteps is how many steps are examined. That is enough to find the largest batch of most tasks
// without packing a whole long epoch.
const plannedSteps = 128

// ownBytes is the memory of the program itself: code and heap.
const ownBytes = 40 << 20

// memoryBytes returns what a run takes beside the model's files. Packed inputs count twice, because Go
// may still hold the outgrown buffer beside the new one. testdata/memory.py compared the result with
// measured peaks.
func memoryBytes(values, packed int64) int64 { return ownBytes + values + 2*packed }

// keptTokens is the micro-batch up to which train.recompute: auto stores all activations. In a larger
// one, two of five layers recompute their widest values, which costs a twentieth of the time and saves
// a fifth of the memory. Smaller micro-batches of the same run may use as much memory as the largest,
// so they recompute fewer layers or none.
const keptTokens = 256

// Plan returns how the run fits into memory and what it takes. It changes nothing. With work, it also
// counts the FLOPs of a step. A run that does not fit is a usage error that says what to set.
func (r *Run) Plan(work bool) (Plan, error) {
	var largest *batch.Forest
	most := 0
	for _, f := range r.firstForests() {
		if n := f.Kept(r.Task.Train.MicroBatchTokens); n > most {
			largest, most = f, n
		}
	}
	p, err := fit(r.Base, r.Task, []*batch.Forest{largest}, r.available())
	if err != nil {
		return p, err
	}
	p.Steps = r.Config.Steps
	// The weights are mapped: the system can drop them and read them again.
	if needed, available := p.MemoryBytes-p.WeightBytes, r.available(); float64(needed) > available {
		err := fmt.Errorf("the run takes about %d MB beside the model's files, and %d MB are available",
			needed>>20, int64(available)>>20)
		return p, failure.Usage(failure.Hint(err,
			"train.micro_batch_tokens: %d takes about half, with the same result but for rounding",
			max(1, p.Tokens/2)))
	}
	if work {
		p.StepFLOPs, err = r.stepFLOPs(p)
	}
	return p, err
}

// firstForests yields the packed batches of the first steps, each with its step from 0.
func (r *Run) firstForests() iter.Seq2[int, *batch.Forest] {
	return func(yield func(int, *batch.Forest) bool) {
		for step, f := range train.PackedBatches(r.Config, r.Rows.examples()) {
			if step == plannedSteps || !yield(step, f) {
				return
			}
		}
	}
}

// stepFLOPs returns the mean work of the first steps.
func (r *Run) stepFLOPs(p Plan) (float64, error) {
	defer restore(r.Base)()
	p.apply(r.Base)
	steps, sum := 0, 0.0
	for step, f := range r.firstForests() {
		plan, err := r.Base.Plan(f)
		if err != nil {
			return 0, err
		}
		sum += plan.FLOPs
		steps = step + 1
	}
	return sum / float64(steps), nil
}

// restore returns a function that sets a base to compute as it does now.
func restore(b *base.Base) func() {
	s := settings{b.PartRows, b.Recompute}
	return func() { s.apply(b) }
}

// fit returns the plan for a step on the largest of forests: in parts, and recomputed as the task says
// or, with auto, as the available bytes ask for.
func fit(b *base.Base, task *config.Task, forests []*batch.Forest, available float64) (Plan, error) {
	defer restore(b)()
	partRows := task.Train.MicroBatchTokens
	p, err := planWith(b, forests,
		settings{partRows, model.Recompute{All: task.Train.Recompute == config.On}})
	if err != nil || task.Train.Recompute != config.Auto {
		return p, err
	}
	if p.Tokens > keptTokens {
		all := p
		some := model.Recompute{Layers: 2 * b.Layers() / 5}
		if p, err = planWith(b, forests, settings{partRows, some}); err != nil {
			return p, err
		}
		beside := func(p Plan) float64 { return float64(p.MemoryBytes - p.WeightBytes - ownBytes) }
		some.Rows, some.Saved = p.Tokens, 1-beside(p)/beside(all)
		p.settings.recompute = some
	}
	if float64(p.MemoryBytes) > 0.9*available {
		return planWith(b, forests, settings{partRows, model.Recompute{All: true}})
	}
	return p, nil
}

// planWith returns what a step on the largest of forests takes with these settings.
func planWith(b *base.Base, forests []*batch.Forest, s settings) (Plan, error) {
	s.apply(b)
	p := Plan{WeightBytes: b.WeightBytes(), settings: s}
	for _, f := range forests {
		plan, err := b.Plan(f)
		if err != nil {
			return p, err
		}
		p.Tokens, p.ValueBytes = max(p.Tokens, plan.Rows), max(p.ValueBytes, plan.Bytes)
		p.MemoryBytes = max(p.MemoryBytes, p.WeightBytes+memoryBytes(plan.Bytes, plan.Packed))
	}
	p.OldTokens, p.Recompute = p.Tokens, b.RecomputedLayers(p.Tokens)
	return p, nil
}
