package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"ptune/internal/batch"
	"ptune/internal/config"
	"ptune/internal/train"
)

// plan is what a run takes, counted from its first batches before anything is computed.
type plan struct {
	Steps       int     `json:"steps"`
	Rows        int     `json:"largest_micro_batch_rows"` // of the packed matrix: soft prompt and texts, what they share once
	StepFLOPs   float64 `json:"step_flops"`               // the mean
	WeightBytes int64   `json:"weight_bytes"`             // mapped from the model's files
	ValueBytes  int64   `json:"value_bytes"`              // what a step keeps
	MemoryBytes int64   `json:"memory_bytes"`             // all of it, with the program's own
	Recompute   int     `json:"recompute"`                // of so many layers one makes its widest values again on the way back; 0: none
}

// plannedSteps is how many steps are looked at: they tell enough, and a long epoch is not gone through.
const plannedSteps = 128

// ownBytes is what the program takes whatever it does: its code, its heap.
const ownBytes = 40 << 20

// programBytes is what a run takes beside the model's files. What the kernels pack counts twice: Go collects what they outgrew when as much
// has come. So it was over the shapes of testdata/memory.py.
func programBytes(values, packed int64) int64 { return ownBytes + values + 2*packed }

// Of how many layers one makes its widest values again on the way back. Every second one costs a fifteenth of a step's time and saves
// a quarter of its values; all, with what attention reads, a fifth and three quarters.
const (
	noLayer = iota
	everyLayer
	everySecondLayer
)

// recomputed is what train.recompute says, as long as memory lasts.
func recomputed(task *config.Task) int {
	switch task.Train.Recompute {
	case config.On:
		return everyLayer
	case config.Off:
		return noLayer
	}
	return everySecondLayer
}

// tight tells whether train.recompute leaves it to memory, and there is too little for so many bytes.
func (b *base) tight(task *config.Task, bytes int64) bool {
	return task.Train.Recompute == config.Auto && float64(bytes) > 0.9*b.memory()
}

// planRun says what memory a run takes, decides whether values are computed twice and, if asked to, counts the work of its steps.
func planRun(task *config.Task, b *base, c train.Config, rows *taskRows, work bool) (plan, error) {
	p := plan{Steps: c.Steps, WeightBytes: b.WeightBytes()}
	var largest *batch.Forest
	for step, f := range train.Forests(c, rows.examples()) {
		if step == plannedSteps {
			break
		}
		if f.Rows() > p.Rows {
			largest, p.Rows = f, f.Rows()
		}
	}
	count := func(recompute int) error {
		b.Recompute = recompute
		run, err := b.Plan(largest)
		p.ValueBytes, p.Recompute = run.Bytes, recompute
		p.MemoryBytes = p.WeightBytes + programBytes(run.Bytes, run.Packed)
		return err
	}
	if err := count(recomputed(task)); err != nil {
		return p, err
	}
	if b.tight(task, p.MemoryBytes) {
		if err := count(everyLayer); err != nil {
			return p, err
		}
	}
	if needed, available := p.MemoryBytes-p.WeightBytes, b.memory(); float64(needed) > available { // weights are mapped, and can be read again
		return p, wrong{withHint(fmt.Errorf("the run takes about %d MB beside the model's files, and %d MB can be had", needed>>20, int64(available)>>20),
			"train.micro_batch_tokens: %d would take about half, and give the same result to rounding", max(1, min(task.Train.MicroBatchTokens, p.Rows)/2))}
	}
	if !work {
		return p, nil
	}
	steps := 0
	for step, f := range train.Forests(c, rows.examples()) {
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
	again := map[int]string{everyLayer: ", most of them computed twice", everySecondLayer: ", the widest of every second layer computed twice"}[p.Recompute]
	_, err := fmt.Fprintf(s.out, "%d steps of %.1f GFLOP\nlargest micro-batch: %d rows\nmemory: about %d MB: %d MB weights, %d MB values%s\n",
		p.Steps, p.StepFLOPs/1e9, p.Rows, p.MemoryBytes>>20, p.WeightBytes>>20, p.ValueBytes>>20, again)
	return err
}

// availableMemory is the bytes that this process can have, infinite where the system does not say: what is free or can be made
// so, within the limit of its control group.
func availableMemory() float64 {
	available := math.Inf(1)
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			var kb float64
			if n, _ := fmt.Sscanf(line, "MemAvailable: %g kB", &kb); n == 1 {
				available = kb * 1024
			}
		}
	}
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if limit, err := os.ReadFile(name); err == nil {
			if n, err := strconv.ParseFloat(strings.TrimSpace(string(limit)), 64); err == nil {
				available = min(available, n)
			}
		}
	}
	return available
}
