//go:build cgo

package kernels

/*
int ptune_amx_allowed(void);
#define DECLARE_BF16(P) \
  void P##pack(const float*, long, int, int, int, int, int, int, float*); \
  void P##product(const float*, int, int, int, const void*, int, int, int, long, int, int, float*, long, int, float*); \
  void P##few(const float*, int, int, int, const void*, int, int, long, int, int, float*, long, int);
DECLARE_BF16(ptune_bf16_)
DECLARE_BF16(ptune_amx_)

static void bf16_pack(int tiles, const float *x, long ldx, int m, int k, int parts, int left, int b0, int b1, float *xp) {
  (tiles ? ptune_amx_pack : ptune_bf16_pack)(x, ldx, m, k, parts, left, b0, b1, xp);
}
static void bf16_product(int tiles, const float *xp, int m, int k, int xparts, const void *w, int dtype, int wparts, int in_out, long ld, int n0, int n1, float *c, long ldc, int add, float *wp) {
  (tiles ? ptune_amx_product : ptune_bf16_product)(xp, m, k, xparts, w, dtype, wparts, in_out, ld, n0, n1, c, ldc, add, wp);
}
static void bf16_few(int tiles, const float *xp, int m, int k, int xparts, const void *w, int dtype, int wparts, long ld, int n0, int n1, float *c, long ldc, int add) {
  (tiles ? ptune_amx_few : ptune_bf16_few)(xp, m, k, xparts, w, dtype, wparts, ld, n0, n1, c, ldc, add);
}
*/
import "C"

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// nativeSets are the C kernels that this CPU can run with products of that type, the slower first.
func nativeSets(compute DType) []set {
	var sets []set
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && compute == F32 {
		s := nativeSet("avx2", 0, 6, 8)
		s.taper = true // measured with this set alone
		sets = append(sets, s)
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
		s := nativeSet("avx512", 1, 12, 16)
		switch {
		case compute == F32:
			sets = append(sets, s)
		case cpu.X86.HasAVX512BF16:
			sets = append(sets, bf16Set(s, 0, 1))
		}
		if cpu.X86.HasAMXTile && cpu.X86.HasAMXBF16 && C.ptune_amx_allowed() != 0 {
			s.name = "amx"
			if compute == F32 {
				sets = append(sets, bf16Set(s, 1, 3))
			} else {
				sets = append(sets, bf16Set(s, 1, 1))
			}
		}
	}
	return sets
}

// bf16Set is the kernels of s with products in bf16, on AMX's tiles or with AVX-512's dot products, where an activation is the
// sum of that many bf16.
func bf16Set(s set, tiles C.int, parts int) set {
	const side, depth, steps, group = 32, 32, 18, 9 // as in bf16.h
	s.mr, s.nr = side, side
	s.fewRows = [...]int{F32: 4, BF16: 4, F16: 4}
	if parts == 3 {
		s.fewRows[F32] = 16
	}
	const once = 16
	s.once = once
	s.block = func(k int) int { return (k + depth - 1) / depth * depth * side * parts / 2 }
	s.group, s.panel = group, group*steps*depth*side*parts/2
	s.pack = func(x Matrix, inOut bool, b0, b1 int, ap []float32) {
		C.bf16_pack(tiles, ptr(x.Data), C.long(x.Stride), C.int(x.Rows), C.int(x.Cols), C.int(parts), flag(inOut), C.int(b0), C.int(b1), ptr(ap))
	}
	s.product = func(ap []float32, m, k int, w Weight, inOut bool, n0, n1 int, out Matrix, add bool, bp []float32) {
		wparts := min(parts, [...]int{F32: 3, BF16: 1, F16: 2}[w.DType])
		if m <= once && !inOut { // f32 in parts never comes here (fewRows)
			C.bf16_few(tiles, ptr(ap), C.int(m), C.int(k), C.int(parts), unsafe.Pointer(&w.Data[0]), C.int(w.DType), C.int(wparts), C.long(w.Stride),
				C.int(n0), C.int(n1), ptr(out.Data), C.long(out.Stride), flag(add))
			return
		}
		C.bf16_product(tiles, ptr(ap), C.int(m), C.int(k), C.int(parts), unsafe.Pointer(&w.Data[0]), C.int(w.DType), C.int(wparts), flag(inOut), C.long(w.Stride),
			C.int(n0), C.int(n1), ptr(out.Data), C.long(out.Stride), flag(add), ptr(bp))
	}
	return s
}
