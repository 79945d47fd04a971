package tensorfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"ptune/internal/files"
)

// Dir is the weights of a Hugging Face model directory: model.safetensors, or the shards named in
// model.safetensors.index.json.
type Dir struct {
	Path    string
	files   []*File
	tensors map[string]Tensor
}

// shardName matches the file names that an index may have: no other directory.
var shardName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}\.safetensors$`)

const maxIndex = 64 << 20 // bytes

// OpenDir maps the weights of a model directory.
func OpenDir(path string) (*Dir, error) { return openDir(path, Open) }

// ReadDir reads the weights of a model directory into memory. Later changes of the files have no
// effect.
func ReadDir(path string) (*Dir, error) {
	return openDir(path, func(path string) (*File, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read tensors: %w", err)
		}
		return Parse(path, data)
	})
}

func openDir(path string, open func(string) (*File, error)) (*Dir, error) {
	d := &Dir{Path: path, tensors: map[string]Tensor{}}
	names, owner, err := shards(path)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := open(filepath.Join(path, name))
		if err != nil {
			d.Close()
			return nil, err
		}
		d.files = append(d.files, f)
		for t, tensor := range f.tensors {
			if _, ok := d.tensors[t]; ok {
				d.Close()
				return nil, fmt.Errorf("read weights %q: tensor %q is in two shards",
					path, shorten(t))
			}
			if in, ok := owner[t]; ok && in != name { // one that the index does not name is read too
				d.Close()
				return nil, fmt.Errorf("read weights %q: tensor %q is in %s, but the index says %q",
					path, shorten(t), name, in)
			}
			d.tensors[t] = tensor
		}
	}
	for _, t := range slices.Sorted(maps.Keys(owner)) {
		if _, ok := d.tensors[t]; !ok {
			d.Close()
			return nil, fmt.Errorf("read weights %q: no tensor %q in %s, where the index says it is",
				path, shorten(t), owner[t])
		}
	}
	return d, nil
}

// shards returns the names of the files and, if there is an index, the file of each tensor.
func shards(path string) (names []string, owner map[string]string, err error) {
	if _, err := os.Stat(filepath.Join(path, "model.safetensors")); err == nil {
		return []string{"model.safetensors"}, nil, nil
	}
	index := filepath.Join(path, "model.safetensors.index.json")
	f, err := os.Open(index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read weights %q: %w", path, noWeights(path))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read weights: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex))
	if err != nil {
		return nil, nil, fmt.Errorf("read weights %q: %w", index, err)
	}
	var x struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := files.ParseJSON(data, &x); err != nil {
		return nil, nil, fmt.Errorf("read weights %q: %s", index, shorten(err.Error()))
	}
	if len(x.WeightMap) == 0 {
		return nil, nil, fmt.Errorf("read weights %q: weight_map is empty", index)
	}
	for _, t := range slices.Sorted(maps.Keys(x.WeightMap)) {
		name := x.WeightMap[t]
		if !shardName.MatchString(name) {
			return nil, nil, fmt.Errorf("read weights %q: the shard of %q is %q, "+
				"want a .safetensors file of the same directory", index, shorten(t), shorten(name))
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), x.WeightMap, nil
}

// otherWeights are the names of weights in formats that are not read.
var otherWeights = []string{
	"pytorch_model*.bin", "*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.npz",
}

// noWeights returns the error for a directory without weights. It names those that are not read.
func noWeights(path string) error {
	for _, pattern := range otherWeights {
		if found, _ := filepath.Glob(filepath.Join(path, pattern)); len(found) > 0 {
			return fmt.Errorf("its weights are in %s, which ptune does not read, and not in model.safetensors: "+
				"load the model with transformers and save it with save_pretrained, which writes safetensors: %w",
				filepath.Base(found[0]), fs.ErrNotExist)
		}
	}
	return fmt.Errorf("neither model.safetensors nor model.safetensors.index.json is there: %w", fs.ErrNotExist)
}

// ParseDir returns the weights of one file in memory. path is for errors.
func ParseDir(path string, data []byte) (*Dir, error) {
	f, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	return &Dir{Path: path, files: []*File{f}, tensors: f.tensors}, nil
}

// Tensor returns the tensor with that name.
func (d *Dir) Tensor(name string) (Tensor, bool) {
	t, ok := d.tensors[name]
	return t, ok
}

// Names returns the names of all tensors, sorted.
func (d *Dir) Names() []string {
	names := make([]string, 0, len(d.tensors))
	for n := range d.tensors {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Close unmaps the files.
func (d *Dir) Close() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
