package main

import (
	"encoding/json"
	"fmt"

	"ptune/internal/batch"
	"ptune/internal/config"
	"ptune/internal/model"
	"ptune/internal/train"
)

// plan is what a run takes, counted from its first batches before anything is computed.
type plan struct {
	Steps       int     `json:"steps"`
	Rows        int     `json:"largest_micro_batch_rows"` // of texts computed at a time, or of what they share and the soft prompt
	StepFLOPs   float64 `json:"step_flops"`               // the mean
	WeightBytes int64   `json:"weight_bytes"`             // mapped from the model's files
	ValueBytes  int64   `json:"value_bytes"`              // what a step keeps
	MemoryBytes int64   `json:"memory_bytes"`             // all of it, with the program's own
	Recompute   int     `json:"recompute_layers"`         // so many layers make values of that micro-batch again on the way back
}

// plannedSteps is how many steps are looked at: they tell enough, and a long epoch is not gone through.
const plannedSteps = 128

// ownBytes is what the program takes whatever it does: its code, its heap.
const ownBytes = 40 << 20

// programBytes is what a run takes beside the model's files. What the kernels pack counts twice: Go collects what they outgrew when as much
// has come. So it was over the shapes of testdata/memory.py.
func programBytes(values, packed int64) int64 { return ownBytes + values + 2*packed }

// keptRows is how many rows at a time have all their values kept where train.recompute is auto. If the largest micro-batch has more, two
// of five layers make its widest values again: that takes a twentieth of its time and saves a fifth of its values. Smaller
// micro-batches use the same room, so most make few again.
const keptRows = 256

// packedTokens is how many tokens of text share what they begin with at least, whether they are computed at once or in parts.
const packedTokens = 4096

// fit has batches computed in parts, and values twice, as the task says or as memory asks for; take plans what a run takes then.
func (b *base) fit(task *config.Task, take func() (rows int, bytes int64, err error)) error {
	b.Part, b.Recompute = task.Train.MicroBatchTokens, model.Recompute{All: task.Train.Recompute == config.On}
	rows, bytes, err := take()
	if err != nil || task.Train.Recompute != config.Auto {
		return err
	}
	if rows > keptRows {
		values := func() float64 { return float64(bytes - b.WeightBytes() - ownBytes) }
		all := values()
		b.Recompute.Layers = 2 * b.Layers() / 5
		if _, bytes, err = take(); err != nil {
			return err
		}
		b.Recompute.Rows, b.Recompute.Saved = rows, 1-values()/all
	}
	if float64(bytes) > 0.9*b.memory() {
		b.Recompute = model.Recompute{All: true}
		_, _, err = take()
	}
	return err
}

// planRun says what memory a run takes, decides whether values are computed twice and, if asked to, counts the work of its steps.
func planRun(task *config.Task, b *base, c train.Config, rows *taskRows, work bool) (plan, error) {
	p := plan{Steps: c.Steps, WeightBytes: b.WeightBytes()}
	var largest *batch.Forest
	most := 0
	for step, f := range train.PackedBatches(c, rows.examples()) {
		if step == plannedSteps {
			break
		}
		if n := f.Kept(task.Train.MicroBatchTokens); n > most {
			largest, most = f, n
		}
	}
	err := b.fit(task, func() (int, int64, error) {
		run, err := b.Plan(largest)
		p.Rows, p.ValueBytes, p.Recompute = run.Rows, run.Bytes, b.RecomputedLayers(run.Rows)
		p.MemoryBytes = p.WeightBytes + programBytes(run.Bytes, run.Packed)
		return p.Rows, p.MemoryBytes, err
	})
	if err != nil {
		return p, err
	}
	if needed, available := p.MemoryBytes-p.WeightBytes, b.memory(); float64(needed) > available { // weights are mapped, and can be read again
		return p, wrong{withHint(fmt.Errorf("the run takes about %d MB beside the model's files, and %d MB can be had", needed>>20, int64(available)>>20),
			"train.micro_batch_tokens: %d would take about half, and give the same result to rounding", max(1, p.Rows/2))}
	}
	if !work {
		return p, nil
	}
	steps := 0
	for step, f := range train.PackedBatches(c, rows.examples()) {
		if step == plannedSteps {
			break
		}
		run, err := b.Plan(f)
		if err != nil {
			return p, err
		}
		p.StepFLOPs += run.FLOPs
		steps = step + 1
	}
	p.StepFLOPs /= float64(steps)
	return p, nil
}

func (p plan) print(s streams, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(p)
	}
	again := ""
	if p.Recompute > 0 {
		again = fmt.Sprintf(", those of %d layers computed twice", p.Recompute)
	}
	_, err := fmt.Fprintf(s.out, "%d steps of %.1f GFLOP\nlargest micro-batch: %d rows\nmemory: about %d MB: %d MB weights, %d MB values%s\n",
		p.Steps, p.StepFLOPs/1e9, p.Rows, p.MemoryBytes>>20, p.WeightBytes>>20, p.ValueBytes>>20, again)
	return err
}
