package kernels

import "encoding/binary"

// This file reads the quantised formats of ggml. quant.h is the same in C, for the kernel sets. A
// block of 32 or 256 values is read as runs of 16: no scale changes within one.

// runValues is the number of values in a run.
const runValues = 16

// quantised returns the format of blocks of that many values and bytes. scales are the places in a block
// of its F16 numbers, run writes run g of a block to out.
func quantised(name string, values, bytes int, scales []int, run func(b []byte, g int, out []float32),
) format {
	return format{
		name: name, values: values, bytes: bytes, align: 1, parts: 3, run: run,
		float: func(data []byte, i int) float32 {
			var out [runValues]float32
			run(data[i/values*bytes:], i%values/runValues, out[:])
			return out[i%runValues]
		},
		notFinite: func(data []byte) int {
			for at := 0; at < len(data); at += bytes {
				for _, s := range scales {
					if data[at+s+1]&0x7c == 0x7c {
						return at / bytes * values
					}
				}
			}
			return -1
		},
	}
}

// plainFloats is set.floats.
func plainFloats(out []float32, data []byte, t DType, at, ld, rows, n int) {
	f := &formats[t]
	for r := range rows {
		for i := 0; i < n; i += runValues {
			v := at + r*ld + i
			f.run(data[v/f.values*f.bytes:], v%f.values/runValues, out[r*n+i:])
		}
	}
}

func half(b []byte) float32 { return float16At(b, 0) }

// run4 writes d q + m, where q is four bits of low, shifted right, and the bits of high above them.
func run4(out []float32, low []byte, shift int, high func(i int) int, d, m float32) {
	for i := range runValues {
		out[i] = d*float32(int(low[i]>>shift&15)|high(i)<<4) + m
	}
}

// signed4 is run4 with q − less instead of q, and without m.
func signed4(out []float32, low []byte, shift int, high func(i int) int, less int, d float32) {
	for i := range runValues {
		out[i] = d * float32((int(low[i]>>shift&15)|high(i)<<4)-less)
	}
}

func none(int) int { return 0 }

// fifth returns the fifth bits of run g of a block of 32 values.
func fifth(b []byte, g int) func(i int) int {
	bits := binary.LittleEndian.Uint32(b)
	return func(i int) int { return int(bits>>(runValues*g+i)) & 1 }
}

// iq4Values are the numbers that four bits of IQ4_NL and IQ4_XS stand for.
var iq4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func runIQ4(out []float32, low []byte, shift int, d float32) {
	for i := range runValues {
		out[i] = d * iq4Values[low[i]>>shift&15]
	}
}

func runQ8_0(b []byte, g int, out []float32) {
	d := half(b)
	for i, q := range b[2+runValues*g : 2+runValues*(g+1)] {
		out[i] = d * float32(int8(q))
	}
}

func runQ4_0(b []byte, g int, out []float32) { signed4(out, b[2:], 4*g, none, 8, half(b)) }

func runQ4_1(b []byte, g int, out []float32) { run4(out, b[4:], 4*g, none, half(b), half(b[2:])) }

func runQ5_0(b []byte, g int, out []float32) {
	signed4(out, b[6:], 4*g, fifth(b[2:], g), 16, half(b))
}

func runQ5_1(b []byte, g int, out []float32) {
	run4(out, b[8:], 4*g, fifth(b[4:], g), half(b), half(b[2:]))
}

func runQ2K(b []byte, g int, out []float32) {
	d, m := half(b[80:])*float32(b[g]&15), half(b[82:])*float32(b[g]>>4)
	q, shift := b[16+32*(g/8)+16*(g&1):], 2*(g/2&3)
	for i := range runValues {
		out[i] = d*float32(q[i]>>shift&3) - m
	}
}

func runQ3K(b []byte, g int, out []float32) {
	s := b[96:]
	scale := int(s[8+g%4]>>(2*(g/4))&3) << 4
	if g < 8 {
		scale |= int(s[g] & 15)
	} else {
		scale |= int(s[g-8] >> 4)
	}
	d := half(b[108:]) * float32(scale-32)
	q, mask, shift := b[32+32*(g/8)+16*(g&1):], b[16*(g&1):], 2*(g/2&3)
	for i := range runValues {
		out[i] = d * float32(int(q[i]>>shift&3)-4+int(mask[i]>>(g/2)&1)<<2)
	}
}

// scaleMin returns the scale and the minimum of run g of a block of Q4_K or Q5_K.
func scaleMin(b []byte, g int) (scale, least float32) {
	s, j := b[4:], g/2
	if j < 4 {
		return half(b) * float32(s[j]&63), half(b[2:]) * float32(s[4+j]&63)
	}
	return half(b) * float32(s[4+j]&15|s[j-4]>>2&0x30), half(b[2:]) * float32(s[4+j]>>4|s[j]>>2&0x30)
}

func runQ4K(b []byte, g int, out []float32) {
	d, m := scaleMin(b, g)
	run4(out, b[16+32*(g/4)+16*(g&1):], 4*(g/2&1), none, d, -m)
}

func runQ5K(b []byte, g int, out []float32) {
	d, m := scaleMin(b, g)
	high := b[16+16*(g&1):]
	run4(out, b[48+32*(g/4)+16*(g&1):], 4*(g/2&1),
		func(i int) int { return int(high[i]>>(g/2)) & 1 }, d, -m)
}

func runQ6K(b []byte, g int, out []float32) {
	high, bits := b[128+32*(g/8)+16*(g&1):], 2*(g/2&3)
	signed4(out, b[64*(g/8)+32*(g/2&1)+16*(g&1):], 4*(g/4&1),
		func(i int) int { return int(high[i]>>bits) & 3 }, 32, half(b[208:])*float32(int8(b[192+g])))
}

func runIQ4NL(b []byte, g int, out []float32) { runIQ4(out, b[2:], 4*g, half(b)) }

func runIQ4XS(b []byte, g int, out []float32) {
	j := g / 2
	scale := int(b[4+j/2]>>(4*(j&1))&15) | int(b[2+j/4]>>(2*(j&3))&3)<<4
	runIQ4(out, b[8+16*j:], 4*(g&1), half(b)*float32(scale-32))
}
