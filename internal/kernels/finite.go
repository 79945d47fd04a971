package kernels

import (
	"sync/atomic"
	"unsafe"
)

// NotFinite is the place of the first value that is NaN or infinite, -1 if there is none. data is aligned to the type's size.
func (p *Pool) NotFinite(data []byte, d DType) int {
	const share = 1 << 18 // values
	n := len(data) / d.Size()
	var first atomic.Int64
	first.Store(int64(n))
	p.InOrder((n+share-1)/share, func(_, i int) {
		from, to := i*share, min(n, (i+1)*share)
		if int64(from) > first.Load() {
			return
		}
		at := -1
		switch d {
		case F32:
			at = special(unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(data))), n)[from:to], 0x7f800000)
		case BF16:
			at = special(unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(data))), n)[from:to], 0x7f80)
		case F16:
			at = special(unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(data))), n)[from:to], 0x7c00)
		}
		for at >= 0 {
			if old := first.Load(); int64(from+at) >= old || first.CompareAndSwap(old, int64(from+at)) {
				break
			}
		}
	})
	if at := int(first.Load()); at < n {
		return at
	}
	return -1
}

// special is the place of the first value whose exponent has all its bits set, -1 if there is none.
func special[T uint16 | uint32](x []T, exponent T) int {
	at := 0
	for ; at+8 <= len(x); at += 8 { // most of all values are numbers
		b := (*[8]T)(x[at:])
		if b[0]&exponent == exponent || b[1]&exponent == exponent || b[2]&exponent == exponent || b[3]&exponent == exponent ||
			b[4]&exponent == exponent || b[5]&exponent == exponent || b[6]&exponent == exponent || b[7]&exponent == exponent {
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
