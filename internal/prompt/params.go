package prompt

import (
	"fmt"
	"slices"

	"ptune/internal/param"
	"ptune/internal/tensorfile"
)

// SaveParams writes the values of parameters to a safetensors file.
func SaveParams(path string, params []*param.Tensor) error {
	return tensorfile.Write(path, tensors("", params), peftMeta())
}

// FillParams reads the values of parameters from a file that SaveParams wrote.
func FillParams(path string, params []*param.Tensor) error { return fill(path, "", params) }

// tensors returns parameters as they are in a file, where their names begin with prefix.
func tensors(prefix string, params []*param.Tensor) []tensorfile.Tensor {
	var all []tensorfile.Tensor
	for _, p := range params {
		all = append(all, tensorfile.Floats(prefix+p.Name, p.Shape, p.Values))
	}
	return all
}

// fill reads the values of parameters from a file that has these tensors and no others.
func fill(path, prefix string, params []*param.Tensor) error {
	f, err := tensorfile.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n := len(f.Tensors()); n != len(params) {
		return fmt.Errorf("%q has %d tensors, want %d", path, n, len(params))
	}
	for _, p := range params {
		t, ok := f.Tensor(prefix + p.Name)
		if !ok {
			return fmt.Errorf("%q has no tensor %q", path, prefix+p.Name)
		}
		if !slices.Equal(t.Shape, p.Shape) {
			return fmt.Errorf("%q: tensor %q has shape %v, want %v", path, t.Name, t.Shape, p.Shape)
		}
		v, err := values(t)
		if err != nil {
			return err
		}
		copy(p.Values, v)
	}
	return nil
}
