package arch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// Load maps the model in a Hugging Face directory: config.json beside model.safetensors or the index
// of its shards.
func Load(dir string) (*Model, error) { return loadDir(dir, tensorfile.OpenDir) }

// LoadCopy is Load with the weights read into memory.
func LoadCopy(dir string) (*Model, error) { return loadDir(dir, tensorfile.ReadDir) }

func loadDir(dir string, open func(string) (*tensorfile.Dir, error)) (*Model, error) {
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
	return load(filepath.Base(abs), dir, c, loader, weights)
}

// LoadFS loads a model whose weights are one file of a file system, such as the one embedded in the
// binary.
func LoadFS(name string, dir fs.FS) (*Model, error) {
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
	return load(name, name, c, loader, weights)
}

// LoadFrom loads a model from the files of a checkpoint and its weights, which it takes over. name is
// the model's.
func LoadFrom(name string, files fs.FS, weights *tensorfile.Dir) (*Model, error) {
	c, loader, err := readConfig(files, name)
	if err != nil {
		weights.Close()
		return nil, err
	}
	return load(name, name, c, loader, weights)
}

func load(
	name, path string, c *Config, loader func(*builder), weights *tensorfile.Dir,
) (*Model, error) {
	m := &Model{
		Name: name, Type: c.ModelType, Vocab: c.VocabSize, EOS: c.EOSTokenID, Weights: weights,
	}
	b := &builder{Config: c, reader: &reader{dir: weights}, m: m}
	loader(b)
	m.Prefix = b.outer
	slices.Sort(b.read)
	m.read = slices.Compact(b.read)
	if err := b.err(); err != nil {
		weights.Close()
		return nil, fmt.Errorf("read model %q: %w", path, err)
	}
	m.Fingerprint = fingerprint(weights)
	return m, nil
}

// Close unmaps the weights.
func (m *Model) Close() error { return m.Weights.Close() }

// sampled is how many bytes of each tensor's beginning, middle and end the fingerprint covers.
const sampled = 4096

// fingerprint hashes the names, types and shapes of all tensors and the first, middle and last bytes
// of each.
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

// WeightBytes returns the size of all weights in their files.
func (m *Model) WeightBytes() int64 {
	var n int64
	for _, name := range m.Weights.Names() {
		t, _ := m.Weights.Tensor(name)
		n += int64(len(t.Data))
	}
	return n
}

// CheckWeights returns an error that names the first tensor with a value that is NaN or infinite. It
// checks the tensors that are computed with: others, such as the masks in old checkpoints of GPT-NeoX, hold
// −∞ on purpose.
func (m *Model) CheckWeights(pool *kernels.Pool) error {
	for _, name := range m.read {
		t, _ := m.Weights.Tensor(name)
		if d, err := kernels.ParseDType(t.DType); err == nil {
			if i := pool.NotFinite(aligned(t.Data, d.Align()), d); i >= 0 {
				return fmt.Errorf("read model %q: value %d of tensor %q is NaN or infinite",
					m.Name, i+1, name)
			}
		}
	}
	return nil
}

// EmbeddingRow returns the embedding of a token, D values, multiplied by Embedding.Scale like the
// token rows beside a soft prompt's.
func (m *Model) EmbeddingRow(id int) []float32 {
	row := make([]float32, m.Hidden)
	m.readEmbedding(row, id)
	return row
}

func (m *Model) readEmbedding(row []float32, id int) {
	w := m.Embedding.Tokens
	kernels.ToFloats(row, w.Data[w.DType.Bytes(id*w.Stride):], w.DType)
	if s := m.Embedding.Scale; s != 0 {
		for i := range row {
			row[i] *= s
		}
	}
}

// EmbeddingRMS returns the root mean square of all values of the embedding.
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
