package arch

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// reader returns weights by name and shape. It collects what does not fit, so that one message lists
// everything.
type reader struct {
	dir    *tensorfile.Dir
	prefix string // what the checkpoint's names begin with
	outer  string // what they begin with in transformers
	errs   []error
}

// maxWeightErrors is the largest number of errors that one message lists.
const maxWeightErrors = 8

// err returns what did not fit.
func (r *reader) err() error {
	if len(r.errs) > maxWeightErrors {
		more := fmt.Errorf("and %d more", len(r.errs)-maxWeightErrors)
		return errors.Join(append(r.errs[:maxWeightErrors], more)...)
	}
	return errors.Join(r.errs...)
}

// under has all names begin with prefix if the checkpoint has prefix+name. Some checkpoints were saved
// without the outer module.
func (r *reader) under(prefix, name string) {
	r.outer = prefix
	if _, ok := r.dir.Tensor(prefix + name); ok {
		r.prefix = prefix
	}
}

// tensor returns the tensor of that name and shape, and its type.
func (r *reader) tensor(name string, shape ...int) (tensorfile.Tensor, kernels.DType) {
	t, ok := r.dir.Tensor(r.prefix + name)
	if !ok {
		r.errs = append(r.errs, fmt.Errorf("tensor %q is missing", r.prefix+name))
		return t, 0
	}
	if !slices.Equal(t.Shape, shape) {
		r.errs = append(r.errs,
			fmt.Errorf("tensor %q has shape %v, want %v", r.prefix+name, t.Shape, shape))
	}
	d, err := kernels.ParseDType(t.DType)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("tensor %q: %w", r.prefix+name, err))
	}
	return t, d
}

// matrix returns a weight stored [rows, cols]: [out, in], or with inOut [in, out].
func (r *reader) matrix(name string, rows, cols int, inOut bool) kernels.Weight {
	t, d := r.tensor(name, rows, cols)
	w := kernels.Weight{
		Name: r.prefix + name, Data: aligned(t.Data, d.Align()), DType: d,
		Out: rows, In: cols, Stride: cols, InOut: inOut,
	}
	if inOut {
		w.Out, w.In = cols, rows
	}
	return w
}

// vector returns a weight of n values as f32.
func (r *reader) vector(name string, n int) []float32 {
	t, d := r.tensor(name, n)
	if len(t.Data) != d.Bytes(n) {
		return nil // refused; n can be too large to allocate
	}
	out := make([]float32, n)
	kernels.ToFloats(out, t.Data, d)
	return out
}

// linear returns name.weight [out, in] and, with bias, name.bias [out].
func (r *reader) linear(name string, out, in int, bias bool) *Linear {
	l := &Linear{Weight: r.matrix(name+".weight", out, in, false)}
	if bias {
		l.Bias = r.vector(name+".bias", out)
	}
	return l
}

// aligned returns data if it is aligned to size bytes, as kernels need, else a copy. It is not aligned
// if the file's header has an odd length.
func aligned(data []byte, size int) []byte {
	if len(data) == 0 || uintptr(unsafe.Pointer(&data[0]))%uintptr(size) == 0 {
		return data
	}
	words := make([]uint32, (len(data)+3)/4)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(data))
	copy(out, data)
	return out
}
