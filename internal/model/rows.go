package model

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"ptune/internal/arch"
	"ptune/internal/files"
	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// SaveWithTokens writes the model of directory from to another with virtual tokens [P, D] as the embeddings of the ids first to
// first+P-1, in rows of the vocabulary that are spare or new. A head of its own and its bias get rows that nothing should choose:
// generation_config.json suppresses the ids. Rows are rounded to the embedding's type, which is reported. The extra files go into the directory too; config.json comes last.
func (m *Model) SaveWithTokens(from, to string, first int, values []float32, extra map[string][]byte) (rounded kernels.DType, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return 0, fmt.Errorf("write model: %w", err)
	}
	rows := len(values) / m.Hidden
	vocab := max(m.Vocab, first+rows)
	change := map[string]tensorfile.Tensor{}
	t := m.Embedding.Tokens
	scaled := make([]float32, len(values))
	for i, v := range values {
		if scaled[i] = v; m.Embedding.Scale != 0 { // what the model will multiply by it again
			scaled[i] = v / m.Embedding.Scale
		}
	}
	embedding := append(m.rowsOf(t), make([]byte, (vocab-m.Vocab)*m.Hidden*t.DType.Size())...)
	put(embedding[first*m.Hidden*t.DType.Size():], scaled, t.DType)
	change[t.Name] = tensorfile.Tensor{Name: t.Name, DType: t.DType.String(), Shape: []int{vocab, m.Hidden}, Data: embedding}
	if h := m.Head.Weight; h.Name != t.Name {
		data := append(m.rowsOf(h), make([]byte, (vocab-m.Vocab)*m.Hidden*h.DType.Size())...)
		change[h.Name] = tensorfile.Tensor{Name: h.Name, DType: h.DType.String(), Shape: []int{vocab, m.Hidden}, Data: data}
	} else if other, ok := m.Weights.Tensor("lm_head.weight"); ok { // some files hold a tied head twice
		other.Shape, other.Data = []int{vocab, m.Hidden}, embedding
		change[other.Name] = other
	}
	if m.Head.Bias != nil {
		const name, never = "lm_head.bias", -1e4
		b, _ := m.Weights.Tensor(name)
		bias := append([]float32(nil), m.Head.Bias...)
		for len(bias) < vocab {
			bias = append(bias, never)
		}
		d, _ := arch.DType(b)
		b.Shape, b.Data = []int{vocab}, make([]byte, vocab*d.Size())
		put(b.Data, bias, d)
		change[name] = b
	}
	if err := m.Weights.Rewrite(to, change); err != nil {
		return 0, err
	}
	ids := make([]int, rows)
	for i := range ids {
		ids[i] = first + i
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := files.WriteBytes(filepath.Join(to, name), extra[name]); err != nil {
			return 0, err
		}
	}
	if err := editJSON(filepath.Join(from, "generation_config.json"), filepath.Join(to, "generation_config.json"), map[string]any{"suppress_tokens": ids}); err != nil {
		return 0, err
	}
	return t.DType, editJSON(filepath.Join(from, "config.json"), filepath.Join(to, "config.json"), map[string]any{"vocab_size": vocab})
}

// rowsOf is a copy of a table's data.
func (m *Model) rowsOf(w kernels.Weight) []byte {
	return append([]byte(nil), w.Data[:w.Out*w.Stride*w.DType.Size()]...)
}

// editJSON writes a JSON object with some keys set; one that is not there is empty.
func editJSON(from, to string, set map[string]any) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte("{}"), nil
	}
	if err != nil {
		return fmt.Errorf("read model: %w", err)
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		return fmt.Errorf("read model: %s: %w", from, err)
	}
	for k, v := range set {
		object[k] = v
	}
	return files.WriteJSON(to, object)
}

// put writes values as a type, rounded to even.
func put(data []byte, values []float32, t kernels.DType) {
	for i, v := range values {
		switch t {
		case kernels.F32:
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
		case kernels.BF16:
			binary.LittleEndian.PutUint16(data[2*i:], uint16(math.Float32bits(arch.BF16(v))>>16))
		case kernels.F16:
			binary.LittleEndian.PutUint16(data[2*i:], half(v))
		}
	}
}

// half is an IEEE 754 binary16, rounded to even; what is too large is the largest.
func half(v float32) uint16 {
	const largest, smallest = 65504, 1.0 / (1 << 24)
	sign := uint16(math.Float32bits(v) >> 16 & 0x8000)
	switch a := math.Abs(float64(v)); {
	case a >= largest:
		return sign | 0x7bff
	case a < 1.0/(1<<14): // subnormal
		return sign | uint16(math.RoundToEven(a/smallest))
	default:
		exp := math.Floor(math.Log2(a))
		frac := math.RoundToEven(a / math.Exp2(exp) * 1024)
		return sign | uint16((exp+14)*1024+frac)
	}
}
