package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// DType is the format of a weight in its file. Its methods and ParseDType are all that other
// packages need to know of a format.
type DType int

// The formats, in the order of FORMATS in weight.h.
const (
	F32 DType = iota
	BF16
	F16
)

// format says how the values of a weight lie in memory: in blocks, one after the other. A block of
// F32, BF16 and F16 is one value.
type format struct {
	name   string // in a checkpoint
	values int    // of a block: 1, or a multiple of 32
	bytes  int    // of a block
	align  int    // kernels read data only at multiples of this address, in bytes
	parts  int    // how many bf16 values add up exactly to one value; 3 hold any f32

	// float returns value i.
	float func(data []byte, i int) float32
	// notFinite returns the index of the first value that is NaN or infinite, -1 if there is none.
	notFinite func(data []byte) int
}

// formats is the table of weight formats.
//
// To add one, for example Q8_0 with blocks of 32 int8 values and an F16 scale (34 bytes):
//
//  1. Append a constant above and an entry here.
//  2. Append a line to FORMATS in weight.h. Every loop is then compiled for the format.
//  3. Add a case to the functions that read values in C: load_weight and load_weights in product.h,
//     load_weights in bf16.h. They are given the index of a value; all vectors begin at a multiple
//     of their length, so they lie within a block.
//  4. Add the constant to the check in native.go that Go and C agree.
//  5. Writing one, as export --vocab-rows does, is writeAs in package model.
//  6. Add the format to the tests' source.weight. The tests of products then compare all kernel sets
//     with the plain loop for it.
//
// A row of a weight must consist of whole blocks.
var formats = [...]format{
	F32: {name: "F32", values: 1, bytes: 4, align: 4, parts: 3,
		float:     float32At,
		notFinite: func(data []byte) int { return firstSpecial[uint32](data, 0x7f800000) }},
	BF16: {name: "BF16", values: 1, bytes: 2, align: 2, parts: 1,
		float:     bfloat16At,
		notFinite: func(data []byte) int { return firstSpecial[uint16](data, 0x7f80) }},
	F16: {name: "F16", values: 1, bytes: 2, align: 2, parts: 2,
		float:     float16At,
		notFinite: func(data []byte) int { return firstSpecial[uint16](data, 0x7c00) }},
}

// ParseDType returns the format with a checkpoint's name for it.
func ParseDType(name string) (DType, error) {
	names := make([]string, len(formats))
	for d, f := range formats {
		if f.name == name {
			return DType(d), nil
		}
		names[d] = f.name
	}
	last := len(names) - 1
	return 0, fmt.Errorf("type %s is not supported, want %s or %s",
		name, strings.Join(names[:last], ", "), names[last])
}

// String returns the format's name in a checkpoint.
func (d DType) String() string { return formats[d].name }

// Bytes returns the size of n values, which must be whole blocks.
func (d DType) Bytes(n int) int { return n / formats[d].values * formats[d].bytes }

// Values returns the number of values in n bytes.
func (d DType) Values(n int) int { return n / formats[d].bytes * formats[d].values }

// Align returns the alignment that data needs, in bytes.
func (d DType) Align() int { return formats[d].align }

// Float returns value i of a weight's data.
func Float(data []byte, t DType, i int) float32 { return formats[t].float(data, i) }

// ToFloats writes the first len(out) values of data to out.
func ToFloats(out []float32, data []byte, t DType) {
	float := formats[t].float
	for i := range out {
		out[i] = float(data, i)
	}
}

func float32At(data []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
}

func bfloat16At(data []byte, i int) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
}

func float16At(data []byte, i int) float32 {
	h := binary.LittleEndian.Uint16(data[2*i:])
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero or subnormal: frac 2^-24
		f := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31: // infinity or NaN
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
