package tensorfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/nlpodyssey/safetensors"
)

// Floats is an F32 tensor of these values.
func Floats(name string, shape []int, values []float32) Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return Tensor{Name: name, DType: "F32", Shape: shape, Data: data}
}

// Values are the values of an F32 tensor.
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

// Write writes a safetensors file as WriteFile does. The same tensors and metadata make the same bytes.
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
			return fmt.Errorf("write %q: tensor %q is there twice or has no shape", path, t.Name)
		}
		if views[t.Name], err = safetensors.NewTensorView(dtype, shape, t.Data); err != nil {
			return fmt.Errorf("write %q: tensor %q: %w", path, t.Name, err)
		}
	}
	return WriteFile(path, func(w io.Writer) error { return safetensors.SerializeToWriter(views, meta, w) })
}

// WriteBytes writes a file of these bytes as WriteFile does.
func WriteBytes(path string, data []byte) error {
	return WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteFile writes a file that is there whole or not at all: under a temporary name beside it, synced, renamed, and the
// folder synced. An error leaves the old file as it was.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %q: %w", path, err)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
