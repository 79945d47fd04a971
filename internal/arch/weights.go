package arch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// reader returns weights by name and shape. It collects what does not fit, so that one message lists
// everything.
type reader struct {
	dir    *tensorfile.Dir
	prefix string   // what the checkpoint's names begin with
	outer  string   // what they begin with in transformers
	root   string   // what the checkpoint has before the names of transformers; usually empty
	read   []string // the names of all tensors that were asked for
	lost   bool     // the names are not those of the model, so there is no use in naming each
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

// under finds what the names of a checkpoint begin with, by the name of a tensor that it must have. In
// transformers that is prefix. Some checkpoints were saved without the outer module, and some inside of
// others: module., _orig_mod. or language_model. before all names.
func (r *reader) under(prefix, name string) {
	r.outer = prefix
	if r.has(prefix + name) {
		r.prefix = prefix
		return
	}
	if r.has(name) {
		return
	}
	var found []string
	for _, n := range r.dir.Names() {
		if strings.HasSuffix(n, "."+name) {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		r.errs = append(r.errs, fmt.Errorf("no tensor %q: the weights are of another model, or all names "+
			"were changed; they have %s", prefix+name, some(r.dir.Names())))
		r.lost = true
		return
	}
	r.prefix = strings.TrimSuffix(found[0], name)
	r.root = strings.TrimSuffix(r.prefix, prefix)
}

// some returns the first names of a list.
func some(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%q and %d more", names[:most], more)
	}
	return fmt.Sprintf("%q", names)
}

// atTop has names begin as that of a tensor that transformers has outside of prefix.
func (r *reader) atTop(name string) {
	if r.prefix = ""; r.has(r.root + name) {
		r.prefix = r.root
	}
}

func (r *reader) has(name string) bool {
	_, ok := r.dir.Tensor(name)
	return ok
}

// tensor returns the tensor of that name and shape, and its type.
func (r *reader) tensor(name string, shape ...int) (tensorfile.Tensor, kernels.DType) {
	t, ok := r.dir.Tensor(r.prefix + name)
	r.read = append(r.read, r.prefix+name)
	if r.lost {
		return t, 0
	}
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
		Out: rows, In: cols, Stride: cols, InOut: inOut, Pairs: t.Pairs,
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
