package kernels

import (
	"sync/atomic"
	"unsafe"
)

// NotFinite returns the index of the first value that is NaN or infinite, -1 if there is none. data
// must be aligned to d.Align.
func (p *Pool) NotFinite(data []byte, d DType) int {
	const chunk = 1 << 18 // values
	n := d.Values(len(data))
	var first atomic.Int64
	first.Store(int64(n))
	p.InOrder((n+chunk-1)/chunk, func(_, i int) {
		from, to := i*chunk, min(n, (i+1)*chunk)
		if int64(from) > first.Load() {
			return
		}
		at := formats[d].notFinite(data[d.Bytes(from):d.Bytes(to)])
		for at >= 0 {
			old := first.Load()
			if int64(from+at) >= old || first.CompareAndSwap(old, int64(from+at)) {
				break
			}
		}
	})
	if at := int(first.Load()); at < n {
		return at
	}
	return -1
}

// firstSpecial returns the index of the first value whose exponent bits are all set, which means NaN
// or infinity; -1 if there is none.
func firstSpecial[T uint16 | uint32](data []byte, exponent T) int {
	var zero T
	x := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/int(unsafe.Sizeof(zero)))
	at := 0
	for ; at+8 <= len(x); at += 8 { // eight at once, because almost all values are numbers
		b := (*[8]T)(x[at:])
		if b[0]&exponent == exponent || b[1]&exponent == exponent ||
			b[2]&exponent == exponent || b[3]&exponent == exponent ||
			b[4]&exponent == exponent || b[5]&exponent == exponent ||
			b[6]&exponent == exponent || b[7]&exponent == exponent {
			break
		}
	}
	for ; at < len(x); at++ {
		if x[at]&exponent == exponent {
			return at
		}
	}
	return -1
}
