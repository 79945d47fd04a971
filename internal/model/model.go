// Package model runs causal language models: it interprets the description that package arch loads as a
// graph, for training, evaluation and generation. Weights stay in the mapped file and are not
// differentiated, unless an adapter that trains them is attached.
//
// Shapes are written with T packed rows, Tt target rows, D hidden width, H heads, V vocabulary rows,
// P soft prompt rows.
package model

import (
	"io/fs"
	"time"

	"ptune/internal/arch"
	"ptune/internal/kernels"
	"ptune/internal/ops"
	"ptune/internal/tensorfile"
)

// Model is a frozen causal language model. It is not safe for concurrent calls.
type Model struct {
	*arch.Model // the description; runs do not change it

	Recompute Recompute // of steps, that is runs with a gradient
	PartRows  int       // about how many rows a part of a step's batch has; 0: batches are not split
	// Stop is asked again and again during each run; its error ends the run. nil: not called.
	Stop func() error
	// Observe is as in ops.Graph. Set it before the first run.
	Observe func(operator string, flops, bytes float64, took time.Duration)

	adapter *Adapter // nil: the base alone
	pool    *kernels.Pool
	arena   *ops.Arena
	graphs  map[graphKey]*graph
	trunk   ops.Trunk // of a split batch
	planner ops.Planner
}

// Load maps the model in a Hugging Face directory: config.json beside model.safetensors or the index
// of its shards.
func Load(dir string, pool *kernels.Pool) (*Model, error) {
	a, err := arch.Load(dir)
	return runnable(a, pool, err)
}

// LoadCopy is Load with the weights read into memory.
func LoadCopy(dir string, pool *kernels.Pool) (*Model, error) {
	a, err := arch.LoadCopy(dir)
	return runnable(a, pool, err)
}

// LoadFS loads a model whose weights are one file of a file system, such as the one embedded in the
// binary.
func LoadFS(name string, dir fs.FS, pool *kernels.Pool) (*Model, error) {
	a, err := arch.LoadFS(name, dir)
	return runnable(a, pool, err)
}

// LoadFrom loads a model from the files of a checkpoint and its weights, which it takes over.
func LoadFrom(name string, files fs.FS, weights *tensorfile.Dir, pool *kernels.Pool) (*Model, error) {
	a, err := arch.LoadFrom(name, files, weights)
	return runnable(a, pool, err)
}

// runnable returns the model that a describes, or err.
func runnable(a *arch.Model, pool *kernels.Pool, err error) (*Model, error) {
	if err != nil {
		return nil, err
	}
	return &Model{Model: a, pool: pool, arena: &ops.Arena{}, graphs: map[graphKey]*graph{}}, nil
}

// Close unmaps the weights and gives the memory of activations back.
func (m *Model) Close() error {
	m.arena.Close()
	m.planner.Close()
	return m.Model.Close()
}

// CheckWeights returns an error that names the first tensor with a value that is NaN or infinite.
func (m *Model) CheckWeights() error { return m.Model.CheckWeights(m.pool) }
