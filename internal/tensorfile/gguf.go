package tensorfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ptune/internal/files"
)

// GGUF is the format of llama.cpp: metadata, a table of tensors and their data in one file or in split
// files (docs/gguf.md of ggml, versions 2 and 3). Everything is checked before a tensor is read.

// Limits of a GGUF file, above those of any real one.
const (
	maxKeys      = 1 << 16
	maxGGUFShape = 4
	maxShards    = 1 << 12
)

// GGUF is an open GGUF file, or the first of split files with the tensors of all.
type GGUF struct {
	Path    string
	Meta    map[string]Value
	Weights *Dir // shapes are those of the checkpoint: the last dimension lies together
}

// Value is a value of the metadata.
type Value struct {
	kind, elem uint32 // elem: of an array
	n          int    // elements of an array
	data       []byte // little-endian; part of the file
}

// The types of metadata, by the numbers of the format.
const (
	kindU8 = iota
	kindI8
	kindU16
	kindI16
	kindU32
	kindI32
	kindF32
	kindBool
	kindString
	kindArray
	kindU64
	kindI64
	kindF64
)

// kindBytes are the sizes of the types of one size.
var kindBytes = map[uint32]int{kindU8: 1, kindI8: 1, kindU16: 2, kindI16: 2, kindU32: 4, kindI32: 4,
	kindF32: 4, kindBool: 1, kindU64: 8, kindI64: 8, kindF64: 8}

// ggmlType is a type of tensors: blocks of values in bytes.
type ggmlType struct {
	name          string
	values, bytes int
}

// ggmlTypes are ggml's types by number (ggml.h), those too that ptune does not compute with, so that an
// error can name them.
var ggmlTypes = map[uint32]ggmlType{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20},
	6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24}, 8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 40},
	10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144}, 13: {"Q5_K", 256, 176},
	14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292}, 16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74},
	18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50}, 20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110},
	22: {"IQ2_S", 256, 82}, 23: {"IQ4_XS", 256, 136}, 24: {"I8", 1, 1}, 25: {"I16", 1, 2},
	26: {"I32", 1, 4}, 27: {"I64", 1, 8}, 28: {"F64", 1, 8}, 29: {"IQ1_M", 256, 56}, 30: {"BF16", 1, 2},
	34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66}, 39: {"MXFP4", 32, 17}, 40: {"NVFP4", 64, 36},
	41: {"Q1_0", 128, 18},
}

// shard matches the names of split files: name-00001-of-00003.gguf.
var shard = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// OpenGGUF maps a GGUF file. Of split files it takes any and opens all.
func OpenGGUF(path string) (*GGUF, error) { return openGGUF(path, true) }

// ReadGGUF reads a GGUF file into memory. Later changes of the file have no effect.
func ReadGGUF(path string) (*GGUF, error) { return openGGUF(path, false) }

func openGGUF(path string, mapped bool) (*GGUF, error) {
	names, err := ggufShards(path)
	if err != nil {
		return nil, fmt.Errorf("read GGUF %q: %w", path, err)
	}
	all := &GGUF{Path: names[0], Weights: &Dir{Path: path, tensors: map[string]Tensor{}}}
	fail := func(name string, err error) (*GGUF, error) {
		all.Weights.Close()
		return nil, fmt.Errorf("read GGUF %q: %w", name, err)
	}
	for i, name := range names {
		data, err := mapFile("GGUF", name)
		if err != nil {
			all.Weights.Close()
			return nil, err
		}
		f := &File{Path: name, mapped: data}
		if !mapped {
			data = bytes.Clone(data)
			f.Close()
		}
		all.Weights.files = append(all.Weights.files, f)
		g, err := ParseGGUF(data)
		if err != nil {
			return fail(name, err)
		}
		if i == 0 {
			all.Meta = g.Meta
		}
		if n, split := g.Int("split.count"); split && n != int64(len(names)) {
			return fail(name, fmt.Errorf("it is one of %d split files; its name says %d", n, len(names)))
		}
		if n, split := g.Int("split.no"); split && n != int64(i) {
			return fail(name, fmt.Errorf("it is split file number %d; its name says %d", n+1, i+1))
		}
		for t, tensor := range g.Weights.tensors {
			if _, ok := all.Weights.tensors[t]; ok {
				return fail(name, fmt.Errorf("tensor %q is in another of the split files, too", shorten(t)))
			}
			all.Weights.tensors[t] = tensor
		}
	}
	if n, ok := all.Int("split.tensors.count"); ok && len(names) > 1 && n != int64(len(all.Weights.tensors)) {
		return fail(path, fmt.Errorf("the split files have %d tensors, the first says %d",
			len(all.Weights.tensors), n))
	}
	return all, nil
}

// ggufShards returns the split files that path is one of, in order, or path alone.
func ggufShards(path string) ([]string, error) {
	m := shard.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return []string{path}, nil
	}
	n, _ := strconv.Atoi(m[3])
	if n < 1 || n > maxShards {
		return nil, fmt.Errorf("its name says %d split files, want 1 to %d", n, maxShards)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-%05d-of-%s.gguf", m[1], i+1, m[3]))
		if _, err := os.Stat(names[i]); err != nil {
			return nil, fmt.Errorf("it is one of %d split files: %w", n, err)
		}
	}
	return names, nil
}

// ggufReader reads the header. After an error it returns zeros.
type ggufReader struct {
	data []byte
	at   int
	err  error
}

func (r *ggufReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// bytes returns the next n bytes. what is for the error if the file ends before.
func (r *ggufReader) bytes(n uint64, what string) []byte {
	if r.err == nil && n > uint64(len(r.data)-r.at) {
		r.fail("%s would be %d bytes at offset %d, but the file ends after %d", what, n, r.at, len(r.data))
	}
	if r.err != nil {
		return nil
	}
	r.at += int(n)
	return r.data[r.at-int(n) : r.at]
}

func (r *ggufReader) u32(what string) uint32 {
	if b := r.bytes(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *ggufReader) u64(what string) uint64 {
	if b := r.bytes(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// name reads a text of at most maxName bytes that is valid UTF-8.
func (r *ggufReader) name(what string) string {
	n := r.u64("the length of " + what)
	if n > maxName {
		r.fail("%s has %d bytes, want at most %d", what, n, maxName)
	}
	s := string(r.bytes(n, what))
	if r.err == nil && (s == "" || !utf8.ValidString(s)) {
		r.fail("%s is empty or not valid UTF-8: %q", what, shorten(s))
	}
	return s
}

// value reads a value of the metadata.
func (r *ggufReader) value(key string) Value {
	what := fmt.Sprintf("the value of %q", key)
	v := Value{kind: r.u32("the type of " + what)}
	if v.kind == kindArray {
		v.elem = r.u32("the type of " + what)
		n := r.u64("the length of " + what)
		if n > uint64(len(r.data)) {
			r.fail("%s would have %d elements, more than the file has bytes", what, n)
			return v
		}
		v.n = int(n)
	}
	begin := r.at
	switch kind := max(v.kind, v.elem); {
	case v.kind == kindArray && v.elem == kindString:
		for range v.n {
			if r.bytes(r.u64(what), what); r.err != nil {
				return v
			}
		}
	case v.kind == kindArray && kindBytes[v.elem] > 0:
		r.bytes(uint64(v.n)*uint64(kindBytes[v.elem]), what)
	case v.kind == kindString:
		r.bytes(r.u64(what), what)
	case v.kind != kindArray && kindBytes[v.kind] > 0:
		r.bytes(uint64(kindBytes[v.kind]), what)
	default:
		r.fail("%s has the type %d, which GGUF does not have here", what, kind)
	}
	if r.err == nil {
		v.data = r.data[begin:r.at]
	}
	return v
}

// ggufTensor is an entry of the table of tensors.
type ggufTensor struct {
	Tensor
	offset, size uint64
}

// ParseGGUF reads a GGUF file in memory.
func ParseGGUF(data []byte) (*GGUF, error) {
	r := &ggufReader{data: data}
	magic := r.bytes(4, "the magic number")
	if r.err != nil || string(magic) != "GGUF" {
		if err := files.Wrong(data); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("it is not a GGUF file: it begins with %q", data[:min(4, len(data))])
	}
	switch v := r.u32("the version"); {
	case r.err != nil:
	case v == 2 || v == 3:
	case v == 2<<24 || v == 3<<24:
		return nil, errors.New("its numbers are big-endian; ptune reads little-endian files")
	default:
		return nil, fmt.Errorf("its version is %d; ptune reads versions 2 and 3", v)
	}
	tensors, keys := r.u64("the number of tensors"), r.u64("the number of keys")
	if tensors > maxTensors || keys > maxKeys {
		return nil, fmt.Errorf("it would have %d tensors and %d keys, want at most %d and %d", tensors, keys,
			maxTensors, maxKeys)
	}
	g := &GGUF{Meta: map[string]Value{}, Weights: &Dir{tensors: map[string]Tensor{}}}
	for range keys {
		key := r.name("a key")
		v := r.value(key)
		if _, twice := g.Meta[key]; twice {
			r.fail("the key %q is there twice", key)
		}
		if r.err != nil {
			return nil, r.err
		}
		g.Meta[key] = v
	}
	align := int64(32)
	if n, ok := g.Int("general.alignment"); ok {
		align = n
	}
	if align < 8 || align > 1<<20 || align&(align-1) != 0 {
		return nil, fmt.Errorf("general.alignment is %d, want a power of two from 8 to %d", align, 1<<20)
	}
	var table []ggufTensor
	for range tensors {
		t := r.tensor(uint64(align))
		if r.err != nil {
			return nil, r.err
		}
		table = append(table, t)
	}
	if r.err != nil {
		return nil, r.err
	}
	begin := (uint64(r.at) + uint64(align) - 1) / uint64(align) * uint64(align)
	slices.SortFunc(table, func(a, b ggufTensor) int {
		return int(min(max(int64(a.offset)-int64(b.offset), -1), 1))
	})
	end := uint64(0)
	for _, t := range table {
		if t.offset < end {
			return nil, fmt.Errorf("tensor %q begins at %d, within the tensor before it", t.Name, t.offset)
		}
		end = t.offset + t.size
		if uint64(len(data)) < begin || end > uint64(len(data))-begin {
			return nil, fmt.Errorf("tensor %q would end at byte %d, but the file ends after %d: it is cut off",
				t.Name, begin+end, len(data))
		}
		t.Data = data[begin+t.offset : begin+end : begin+end]
		if _, twice := g.Weights.tensors[t.Name]; twice {
			return nil, fmt.Errorf("tensor %q is there twice", t.Name)
		}
		g.Weights.tensors[t.Name] = t.Tensor
	}
	return g, nil
}

// tensor reads an entry of the table.
func (r *ggufReader) tensor(align uint64) (t ggufTensor) {
	t.Name = r.name("a tensor's name")
	n := r.u32("the dimensions of " + t.Name)
	if n > maxGGUFShape {
		r.fail("tensor %q has %d dimensions, want at most %d", t.Name, n, maxGGUFShape)
		return t
	}
	values := uint64(1)
	for range n {
		d := r.u64("a dimension of " + t.Name)
		if d == 0 || d > math.MaxInt32 || values > 1<<48/d {
			r.fail("tensor %q has a dimension of %d, or too many values", t.Name, d)
			return t
		}
		values *= d
		t.Shape = append(t.Shape, int(d))
	}
	number := r.u32("the type of " + t.Name)
	t.offset = r.u64("the offset of " + t.Name)
	if r.err != nil {
		return t
	}
	kind, ok := ggmlTypes[number]
	switch {
	case !ok:
		r.fail("tensor %q has the type %d, which ptune does not know", t.Name, number)
		return t
	case n == 0:
		r.fail("tensor %q has no dimensions", t.Name)
		return t
	case t.Shape[0]%kind.values != 0:
		r.fail("tensor %q is %s with rows of %d values, want a multiple of %d", t.Name, kind.name, t.Shape[0],
			kind.values)
	case t.offset%align != 0 || t.offset > 1<<62:
		r.fail("tensor %q begins at %d, want a multiple of %d", t.Name, t.offset, align)
	}
	slices.Reverse(t.Shape)
	t.DType = kind.name
	t.size = values / uint64(kind.values) * uint64(kind.bytes)
	return t
}

// Int returns a whole number of the metadata.
func (g *GGUF) Int(key string) (n int64, ok bool) {
	v, ok := g.Meta[key]
	if !ok || v.kind == kindArray {
		return 0, false
	}
	return v.int(v.kind, v.data)
}

// int returns a number of a type that holds whole numbers.
func (v Value) int(kind uint32, data []byte) (int64, bool) {
	switch kind {
	case kindU8, kindBool:
		return int64(data[0]), true
	case kindI8:
		return int64(int8(data[0])), true
	case kindU16:
		return int64(binary.LittleEndian.Uint16(data)), true
	case kindI16:
		return int64(int16(binary.LittleEndian.Uint16(data))), true
	case kindU32:
		return int64(binary.LittleEndian.Uint32(data)), true
	case kindI32:
		return int64(int32(binary.LittleEndian.Uint32(data))), true
	case kindU64, kindI64:
		n := int64(binary.LittleEndian.Uint64(data))
		return n, kind == kindI64 || n >= 0
	}
	return 0, false
}

// Bool returns a truth value of the metadata.
func (g *GGUF) Bool(key string) (b, ok bool) {
	v, ok := g.Meta[key]
	if !ok || v.kind != kindBool {
		return false, false
	}
	return v.data[0] != 0, true
}

// Float returns a number of the metadata.
func (g *GGUF) Float(key string) (float64, bool) {
	v, ok := g.Meta[key]
	switch {
	case !ok:
		return 0, false
	case v.kind == kindF32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(v.data))), true
	case v.kind == kindF64:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.data)), true
	}
	n, ok := g.Int(key)
	return float64(n), ok
}

// String returns a text of the metadata.
func (g *GGUF) String(key string) (string, bool) {
	v, ok := g.Meta[key]
	if !ok || v.kind != kindString {
		return "", false
	}
	return string(v.data[8:]), true
}

// Strings returns a list of texts of the metadata.
func (g *GGUF) Strings(key string) ([]string, bool) {
	v, ok := g.Meta[key]
	if !ok || v.kind != kindArray || v.elem != kindString {
		return nil, false
	}
	list, data := make([]string, v.n), v.data
	for i := range list {
		n := binary.LittleEndian.Uint64(data)
		list[i], data = string(data[8:8+n]), data[8+n:]
	}
	return list, true
}

// Ints returns a list of whole numbers of the metadata.
func (g *GGUF) Ints(key string) ([]int64, bool) {
	v, ok := g.Meta[key]
	if size := kindBytes[v.elem]; ok && v.kind == kindArray && size > 0 {
		list := make([]int64, v.n)
		for i := range list {
			if list[i], ok = v.int(v.elem, v.data[i*size:]); !ok {
				return nil, false
			}
		}
		return list, true
	}
	return nil, false
}

// Floats returns a list of F32 numbers of the metadata.
func (g *GGUF) Floats(key string) ([]float32, bool) {
	v, ok := g.Meta[key]
	if !ok || v.kind != kindArray || v.elem != kindF32 {
		return nil, false
	}
	list := make([]float32, v.n)
	for i := range list {
		list[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.data[4*i:]))
	}
	return list, true
}

// GGUFName returns the name of a model's file without .gguf and without the number of a split file.
func GGUFName(path string) string {
	name := filepath.Base(path)
	if m := shard.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return strings.TrimSuffix(name, ".gguf")
}

// Change replaces each tensor with what change returns for it; one without a name is left out. It fails
// if two tensors get one name.
func (d *Dir) Change(change func(t Tensor) (Tensor, error)) error {
	all := make(map[string]Tensor, len(d.tensors))
	for _, old := range d.Names() {
		t, err := change(d.tensors[old])
		if err != nil {
			return err
		}
		if t.Name == "" {
			continue
		}
		if _, twice := all[t.Name]; twice {
			return fmt.Errorf("tensor %q stands for %s, as another does", shorten(old), t.Name)
		}
		all[t.Name] = t
	}
	d.tensors = all
	return nil
}

// GGMLType returns the name of a type of tensors by ggml's number, and the values and bytes of its
// blocks; "" if there is none.
func GGMLType(number uint32) (name string, values, bytes int) {
	t := ggmlTypes[number]
	return t.name, t.values, t.bytes
}
