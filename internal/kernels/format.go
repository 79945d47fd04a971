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

// The formats, in the order of FORMATS and QUANTISED in weight.h.
const (
	F32 DType = iota
	BF16
	F16
	Q8_0
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	IQ4_NL
	IQ4_XS
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
	// run writes 16 values of a block, from value 16 g on. nil: products read the format itself.
	run func(block []byte, g int, out []float32)
}

// formats is the table of weight formats. A row of a weight must consist of whole blocks.
//
// To add a quantised format, which products read as panels of f32:
//
//  1. Append a constant above, an entry here and its function to quant.go.
//  2. Append a line to QUANTISED in weight.h and a case to run in quant.h.
//  3. Add the constant to the check in native.go that Go and C agree.
//  4. Add its golden values to quant_test.go, which testdata/quants.py makes.
//
// To add a format that products read themselves, in blocks of one value:
//
//  1. Append it to FORMATS in weight.h. Every loop is then compiled for it.
//  2. Add a case to the functions that read values in C: load_weight and load_weights in product.h,
//     load_weights in bf16.h. They are given the index of a value.
//  3. Add the constant to the check in native.go, and the format to the tests' source.weight. The tests
//     of products then compare all kernel sets with the plain loop for it.
//  4. Writing one, as export --vocab-rows does, is writeAs in package model.
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
	Q8_0:   quantised("Q8_0", 32, 34, []int{0}, runQ8_0),
	Q4_0:   quantised("Q4_0", 32, 18, []int{0}, runQ4_0),
	Q4_1:   quantised("Q4_1", 32, 20, []int{0, 2}, runQ4_1),
	Q5_0:   quantised("Q5_0", 32, 22, []int{0}, runQ5_0),
	Q5_1:   quantised("Q5_1", 32, 24, []int{0, 2}, runQ5_1),
	Q2_K:   quantised("Q2_K", 256, 84, []int{80, 82}, runQ2K),
	Q3_K:   quantised("Q3_K", 256, 110, []int{108}, runQ3K),
	Q4_K:   quantised("Q4_K", 256, 144, []int{0, 2}, runQ4K),
	Q5_K:   quantised("Q5_K", 256, 176, []int{0, 2}, runQ5K),
	Q6_K:   quantised("Q6_K", 256, 210, []int{208}, runQ6K),
	IQ4_NL: quantised("IQ4_NL", 32, 18, []int{0}, runIQ4NL),
	IQ4_XS: quantised("IQ4_XS", 256, 136, []int{0}, runIQ4XS),
}

// ParseDType returns the format with a checkpoint's name for it.
func ParseDType(name string) (DType, error) {
	var names []string // those of safetensors
	for d, f := range formats {
		if f.name == name {
			return DType(d), nil
		}
		if f.values == 1 {
			names = append(names, f.name)
		}
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

// BlockValues returns the number of values in a block. A row of a weight is whole blocks.
func (d DType) BlockValues() int { return formats[d].values }

// BlockBytes returns the size of a block.
func (d DType) BlockBytes() int { return formats[d].bytes }

// Quantised reports whether blocks hold several values with their scales.
func (d DType) Quantised() bool { return formats[d].run != nil }

// computed returns the format in which products read weights of this one.
func (d DType) computed() DType {
	if d.Quantised() {
		return F32
	}
	return d
}

// Align returns the alignment that data needs, in bytes.
func (d DType) Align() int { return formats[d].align }

// Float returns value i of a weight's data.
func Float(data []byte, t DType, i int) float32 { return formats[t].float(data, i) }

// ToFloats writes the first len(out) values of data to out.
func ToFloats(out []float32, data []byte, t DType) {
	if t.Quantised() && len(out)%runValues == 0 {
		plainFloats(out, data, t, 0, 0, 1, len(out))
		return
	}
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
