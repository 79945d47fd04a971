package tensorfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/nlpodyssey/safetensors"

	"ptune/internal/files"
)

// Floats returns an F32 tensor with these values.
func Floats(name string, shape []int, values []float32) Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return Tensor{Name: name, DType: "F32", Shape: shape, Data: data}
}

// Values returns the values of an F32 tensor.
func (t Tensor) Values() ([]float32, error) {
	if t.DType != "F32" {
		return nil, fmt.Errorf("tensor %q is %s, want F32", t.Name, t.DType)
	}
	out := make([]float32, len(t.Data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out, nil
}

// Write writes a safetensors file, whole or not at all. Equal tensors and metadata give equal
// bytes.
func Write(path string, tensors []Tensor, meta map[string]string) error {
	views := make(map[string]safetensors.TensorView, len(tensors))
	for _, t := range tensors {
		shape := make([]uint64, len(t.Shape))
		n := uint64(1)
		for i, s := range t.Shape {
			shape[i] = uint64(s)
			n *= shape[i]
		}
		dtype, err := safetensors.ParseDType(t.DType)
		if err != nil {
			return fmt.Errorf("write %q: tensor %q: %w", path, t.Name, err)
		}
		if _, ok := views[t.Name]; ok || len(t.Shape) == 0 {
			return fmt.Errorf("write %q: tensor %q is a duplicate or has no shape", path, t.Name)
		}
		if views[t.Name], err = safetensors.NewTensorView(dtype, shape, t.Data); err != nil {
			return fmt.Errorf("write %q: tensor %q: %w", path, t.Name, err)
		}
	}
	return files.Write(path, func(w io.Writer) error {
		return safetensors.SerializeToWriter(views, meta, w)
	})
}
