package model

import (
	"encoding/binary"
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

// SaveWithTokens writes the model of directory from to another directory, with virtual tokens [P, D] as
// the embeddings of the ids first to first+P-1. The ids are spare rows of the vocabulary or new ones. A
// separate head and its bias get new rows that make these tokens unlikely, and generation_config.json
// suppresses them. The rows are rounded to the embedding's type, which is returned. The extra files are
// written too. config.json comes last.
func (m *Model) SaveWithTokens(
	from, to string, first int, values []float32, extra map[string][]byte,
) (rounded kernels.DType, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return 0, fmt.Errorf("write model: %w", err)
	}
	rows := len(values) / m.Hidden
	vocab := max(m.Vocab, first+rows)
	change := map[string]tensorfile.Tensor{}
	t := m.Embedding.Tokens
	scaled := make([]float32, len(values))
	for i, v := range values {
		scaled[i] = v
		if m.Embedding.Scale != 0 { // the model multiplies by it
			scaled[i] = v / m.Embedding.Scale
		}
	}
	// table returns a copy of w as a tensor of vocab rows. The new ones are zero.
	table := func(w kernels.Weight) tensorfile.Tensor {
		data := make([]byte, w.DType.Bytes(vocab*m.Hidden))
		copy(data, w.Data[:w.DType.Bytes(w.Out*w.Stride)])
		shape := []int{vocab, m.Hidden}
		return tensorfile.Tensor{Name: w.Name, DType: w.DType.String(), Shape: shape, Data: data}
	}
	embedding := table(t)
	writeAs(embedding.Data[t.DType.Bytes(first*m.Hidden):], scaled, t.DType)
	change[t.Name] = embedding
	if h := m.Head.Weight; h.Name != t.Name {
		change[h.Name] = table(h)
	} else if other, ok := m.Weights.Tensor("lm_head.weight"); ok { // some files hold a tied head twice
		other.Shape, other.Data = embedding.Shape, embedding.Data
		change[other.Name] = other
	}
	if m.Head.Bias != nil {
		const name, unlikely = "lm_head.bias", -1e4
		b, _ := m.Weights.Tensor(name)
		bias := append([]float32(nil), m.Head.Bias...)
		for len(bias) < vocab {
			bias = append(bias, unlikely)
		}
		d, _ := kernels.ParseDType(b.DType)
		b.Shape, b.Data = []int{vocab}, make([]byte, d.Bytes(vocab))
		writeAs(b.Data, bias, d)
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
	err = editJSON(from, to, "generation_config.json", "suppress_tokens", ids)
	if err != nil {
		return 0, err
	}
	return t.DType, editJSON(from, to, "config.json", "vocab_size", vocab)
}

// editJSON copies the JSON object in file name from one directory to another with a key set. A
// missing file is an empty object.
func editJSON(from, to, name, key string, value any) error {
	path := filepath.Join(from, name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte("{}"), nil
	}
	if err != nil {
		return fmt.Errorf("read model: %w", err)
	}
	var object map[string]any
	if err := files.ParseJSON(data, &object); err != nil {
		return fmt.Errorf("read model: %s: %w", path, err)
	}
	object[key] = value
	return files.WriteJSON(filepath.Join(to, name), object)
}

// writeAs writes values to data in type t, rounded to the nearest, ties to even.
func writeAs(data []byte, values []float32, t kernels.DType) {
	for i, v := range values {
		switch t {
		case kernels.F32:
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
		case kernels.BF16:
			binary.LittleEndian.PutUint16(data[2*i:], uint16(math.Float32bits(arch.BF16(v))>>16))
		case kernels.F16:
			binary.LittleEndian.PutUint16(data[2*i:], half(v))
		default:
			// the embedding was read as one of these
			panic(fmt.Sprintf("model: cannot write weights as %v", t))
		}
	}
}

// half returns v as IEEE 754 binary16, rounded to the nearest, ties to even. A value that is too large
// becomes the largest.
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
