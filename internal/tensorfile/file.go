// Package tensorfile reads and writes safetensors: a file, or the shards of a directory with an
// index. It maps files into memory, so weights are read from the page cache when they are used.
package tensorfile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"golang.org/x/sys/unix"
)

// Tensor is a named array in a file.
type Tensor struct {
	Name  string
	DType string // F32, BF16, F16, I64, …; in GGUF also Q4_K and the like
	Shape []int
	// Pairs, if not 0, tells that the rows of each head of this many lie in pairs: 0, Pairs/2, 1,
	// Pairs/2+1 and so on.
	Pairs int
	Data  []byte // little-endian; part of the mapped file, valid until Close
}

// File is an open safetensors file.
type File struct {
	Path    string
	Meta    map[string]string // the header's __metadata__
	tensors map[string]Tensor
	mapped  []byte
}

// Open maps a safetensors file. It checks the header before it allocates anything.
func Open(path string) (*File, error) {
	mapped, err := mapFile("tensors", path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(path, mapped)
	if err != nil {
		unix.Munmap(mapped)
		return nil, err
	}
	t.mapped = mapped
	return t, nil
}

// mapFile maps a file into memory, at least 8 bytes. what is for errors.
func mapFile(what, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s %q: not a regular file", what, path)
	}
	if info.Size() < 8 {
		return nil, fmt.Errorf("read %s %q: the file is %d bytes, want at least 8: %s",
			what, path, info.Size(), cutOff)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s %q: %w", what, path, err)
	}
	return mapped, nil
}

// Parse reads a safetensors file in memory. path is for errors.
func Parse(path string, data []byte) (*File, error) {
	f := &File{Path: path}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("read tensors %q: %w", path, err)
	}
	return f, nil
}

func (f *File) parse(file []byte) error {
	if err := checkHeader(file); err != nil {
		return err
	}
	n, meta, err := safetensors.ReadMetadata(file)
	if err != nil {
		return cmp.Or(checkSize(file), errors.New(shorten(err.Error())))
	}
	data := file[8+n:]
	f.Meta, f.tensors = meta.Metadata(), map[string]Tensor{}
	for name, t := range meta.Tensors() {
		shape := make([]int, len(t.Shape))
		for i, n := range t.Shape {
			if n > math.MaxInt32 {
				return fmt.Errorf("tensor %q has a dimension of %d", name, n)
			}
			shape[i] = int(n)
		}
		f.tensors[name] = Tensor{
			Name: name, DType: t.DType.String(), Shape: shape,
			Data: data[t.DataOffsets[0]:t.DataOffsets[1]],
		}
	}
	return nil
}

// Tensor returns the tensor with that name.
func (f *File) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Tensors returns all tensors by name.
func (f *File) Tensors() map[string]Tensor { return f.tensors }

// Close unmaps the file. The data of its tensors must not be used after it.
func (f *File) Close() error {
	m := f.mapped
	f.mapped, f.tensors = nil, nil
	if m == nil {
		return nil
	}
	return unix.Munmap(m)
}

// shorten cuts the middle out of a long message of a hostile file. The cause is at the end.
func shorten(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:150]+"…"+s[len(s)-150:], "")
	}
	return s
}
