// Package model loads causal language models from Hugging Face checkpoints into a graph: each architecture is written once,
// for training, evaluation and generation. Weights stay in the mapped file and are never differentiated.
//
// Shapes are written with T packed rows, Tt target rows, D hidden width, H heads, V vocabulary rows, P soft prompt rows.
package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"ptune/internal/kernels"
	"ptune/internal/ops"
	"ptune/internal/tensorfile"
)

// Model is a frozen causal language model. It works on one call at a time.
type Model struct {
	Name         string // the directory's last element
	Type         string // model_type
	Hidden       int    // D
	Vocab        int    // V, rows of the embedding
	MaxPositions int    // soft prompt and text together
	EOS          []int32
	Fingerprint  string                                                          // tells bases apart: a hash of names, shapes and samples of all weights
	Observe      func(operator string, flops, bytes float64, took time.Duration) // as ops.Graph has it; set before the first run
	Recompute    Recompute                                                       // of a gradient's runs
	Part         int                                                             // a gradient's texts are computed about so many rows at a time, what they share once; 0: all at once

	arch   *decoder
	outer  string // what the names of all modules but the head begin with in transformers
	embed  ops.Embedding
	head   ops.Head
	layers int
	heads  kernels.Heads
	dir    *tensorfile.Dir
	pool   *kernels.Pool
	arena  *ops.Arena
	graphs map[graphKey]*graph
	trunk  ops.Trunk
}

// Layers is the number of layers.
func (m *Model) Layers() int { return m.layers }

// Heads is the number of query heads in each layer.
func (m *Model) Heads() int { return m.heads.Q }

// WeightBytes is the size of all weights in their files.
func (m *Model) WeightBytes() int64 {
	var n int64
	for _, name := range m.dir.Names() {
		t, _ := m.dir.Tensor(name)
		n += int64(len(t.Data))
	}
	return n
}

// Load maps the model in a Hugging Face directory: config.json beside model.safetensors or its sharded index.
func Load(dir string, pool *kernels.Pool) (*Model, error) {
	return loadDir(dir, pool, tensorfile.OpenDir)
}

// LoadCopy is Load with the weights read into memory.
func LoadCopy(dir string, pool *kernels.Pool) (*Model, error) {
	return loadDir(dir, pool, tensorfile.ReadDir)
}

func loadDir(dir string, pool *kernels.Pool, open func(string) (*tensorfile.Dir, error)) (*Model, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("read model %q: not a directory", dir)
	}
	c, loader, err := readConfig(os.DirFS(dir), dir)
	if err != nil {
		return nil, err
	}
	weights, err := open(dir)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return load(filepath.Base(abs), dir, c, loader, weights, pool)
}

// LoadFS loads a model of one file from a file system, which the binary may embed.
func LoadFS(name string, dir fs.FS, pool *kernels.Pool) (*Model, error) {
	c, loader, err := readConfig(dir, name)
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(dir, "model.safetensors")
	if err != nil {
		return nil, fmt.Errorf("read model %q: %w", name, err)
	}
	weights, err := tensorfile.ParseDir(name, data)
	if err != nil {
		return nil, err
	}
	return load(name, name, c, loader, weights, pool)
}

func load(name, path string, c *Config, loader func(*builder), weights *tensorfile.Dir, pool *kernels.Pool) (*Model, error) {
	m := &Model{Name: name, Type: c.ModelType, Vocab: c.VocabSize, EOS: c.EOSTokenID,
		dir: weights, pool: pool, arena: &ops.Arena{}, graphs: map[graphKey]*graph{}}
	b := &builder{Config: c, reader: &reader{dir: weights}, m: m}
	loader(b)
	m.outer = b.outer
	if err := b.err(); err != nil {
		weights.Close()
		return nil, fmt.Errorf("read model %q: %w", path, err)
	}
	m.Fingerprint = fingerprint(weights)
	return m, nil
}

// Close unmaps the weights and gives the memory of values back.
func (m *Model) Close() error {
	m.arena.Close()
	return m.dir.Close()
}

// sampled is how much of each tensor's data goes into the fingerprint.
const sampled = 4096

// fingerprint hashes the names, types and shapes of all tensors and the first, middle and last bytes of each.
func fingerprint(d *tensorfile.Dir) string {
	h := sha256.New()
	for _, name := range d.Names() {
		t, _ := d.Tensor(name)
		fmt.Fprintf(h, "%s %s %v\n", name, t.DType, t.Shape)
		for _, at := range []int{0, len(t.Data) / 2, len(t.Data) - sampled} {
			at = max(0, at)
			h.Write(t.Data[at:min(len(t.Data), at+sampled)])
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// CheckWeights finds weights that are no numbers, and names their tensor.
func (m *Model) CheckWeights() error {
	for _, name := range m.dir.Names() {
		t, _ := m.dir.Tensor(name)
		if d, ok := dtype(t); ok {
			if i := m.pool.NotFinite(aligned(t.Data, d.Size()), d); i >= 0 {
				return fmt.Errorf("read model %q: value %d of tensor %q is no number (NaN or infinite)", m.Name, i+1, name)
			}
		}
	}
	return nil
}

// EmbeddingRow is the embedding of a token, D values, as the soft prompt's rows are.
func (m *Model) EmbeddingRow(id int) []float32 {
	row := make([]float32, m.Hidden)
	m.readEmbedding(row, id)
	return row
}

func (m *Model) readEmbedding(row []float32, id int) {
	m.embed.Token(row, id)
}

// EmbeddingRMS is the root mean square of all values of the embedding.
func (m *Model) EmbeddingRMS() float64 {
	var s float64
	row := make([]float32, m.Hidden)
	for id := range m.Vocab {
		m.readEmbedding(row, id)
		for _, v := range row {
			s += float64(v) * float64(v)
		}
	}
	return math.Sqrt(s / float64(m.Vocab) / float64(m.Hidden))
}
