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
)

// Model is a frozen causal language model. It is not safe for concurrent calls.
type Model struct {
	*arch.Model // the description; runs do not change it

	Observe   func(operator string, flops, bytes float64, took time.Duration) // as ops.Graph.Observe; set before the first run
	Recompute Recompute                                                       // of runs with a gradient
	Part      int                                                             // rows of a gradient's parts, about; 0: the batch is not split

	adapter *Adapter // nil: the base alone
	pool    *kernels.Pool
	arena   *ops.Arena
	graphs  map[graphKey]*graph
	trunk   ops.Trunk // of a split batch
	planner ops.Planner
}

// Load maps the model in a Hugging Face directory: config.json beside model.safetensors or its sharded
// index.
func Load(dir string, pool *kernels.Pool) (*Model, error) {
	a, err := arch.Load(dir)
	return over(a, pool, err)
}

// LoadCopy is Load with the weights read into memory.
func LoadCopy(dir string, pool *kernels.Pool) (*Model, error) {
	a, err := arch.LoadCopy(dir)
	return over(a, pool, err)
}

// LoadFS loads a model of one file from a file system, which the binary may embed.
func LoadFS(name string, dir fs.FS, pool *kernels.Pool) (*Model, error) {
	a, err := arch.LoadFS(name, dir)
	return over(a, pool, err)
}

func over(a *arch.Model, pool *kernels.Pool, err error) (*Model, error) {
	if err != nil {
		return nil, err
	}
	return &Model{Model: a, pool: pool, arena: &ops.Arena{}, graphs: map[graphKey]*graph{}}, nil
}

// Close unmaps the weights and gives the memory of values back.
func (m *Model) Close() error {
	m.arena.Close()
	m.planner.Close()
	return m.Model.Close()
}

// CheckWeights returns an error that names the first tensor with a value that is NaN or infinite.
func (m *Model) CheckWeights() error { return m.Model.CheckWeights(m.pool) }
