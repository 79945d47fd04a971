//go:build cgo && (amd64 || arm64)

package kernels

/*
#cgo CFLAGS: -O3 -std=gnu11
#cgo LDFLAGS: -lm
#include <stdint.h>
#define DECLARE(P) \
  void P##pack(const float*, long, int, int, int, int, float*); \
  void P##product(const float*, int, int, const void*, int, int, long, int, int, float*, long, int, float*); \
  void P##few(const float*, long, int, int, const void*, int, int, long, int, int, float*, long, int); \
  void P##attend(const float*, long, const float*, long, int, int, int, float, int, float, const float*, long, const int32_t*, int, int, int, int, int, float*, long, float*, long, float*); \
  void P##attend_back(const float*, long, const float*, long, int, int, int, float, int, float, const float*, long, const int32_t*, int, int, int, int, int, const float*, long, const float*, long, float*, long, int, float*, float*, int, long, int, float*); \
  void P##gated(int, const float*, const float*, float*, int); \
  void P##gated_back(int, const float*, const float*, const float*, float*, float*, int); \
  void P##act(int, const float*, float*, int); \
  void P##act_back(int, const float*, const float*, float*, int); \
  double P##softmax_part(float*, int, float*); \
  void P##rms_norm(const float*, const float*, float, float*, int); \
  void P##rms_norm_back(const float*, const float*, const float*, float, float*, int); \
  void P##layer_norm(const float*, const float*, const float*, float, float*, int); \
  void P##layer_norm_back(const float*, const float*, const float*, float, float*, int); \
  float P##peak(long, const float*); \
  void P##add(const float*, const float*, float*, int); \
  void P##rotate(float*, int, int, int, const float*, const float*, float);
#ifdef __x86_64__
DECLARE(ptune_avx2_)
DECLARE(ptune_avx512_)
// One call for both sets: wide chooses.
#define BOTH(wide, name, ...) (wide ? ptune_avx512_##name(__VA_ARGS__) : ptune_avx2_##name(__VA_ARGS__))
#else
DECLARE(ptune_neon_)
#define BOTH(wide, name, ...) ptune_neon_##name(__VA_ARGS__)
#endif
static void pack(int wide, const float *x, long ldx, int m, int k, int b0, int b1, float *ap) { BOTH(wide, pack, x, ldx, m, k, b0, b1, ap); }
static void product(int wide, const float *ap, int m, int k, const void *w, int dtype, int in_out, long ld, int n0, int n1, float *c, long ldc, int add, float *bp) {
  BOTH(wide, product, ap, m, k, w, dtype, in_out, ld, n0, n1, c, ldc, add, bp);
}
static void few(int wide, const float *x, long ldx, int m, int k, const void *w, int dtype, int in_out, long ld, int n0, int n1, float *c, long ldc, int add) {
  BOTH(wide, few, x, ldx, m, k, w, dtype, in_out, ld, n0, n1, c, ldc, add);
}
static void attend(int wide, const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int32_t *spans, int nspans, int own, int first, int n, int part, float *o, long ldo, float *lse, long ldl, float *room) {
  BOTH(wide, attend, q, ldq, kv, ldkv, voff, heads, hd, scale, window, cap, bias, ldb, spans, nspans, own, first, n, part, o, ldo, lse, ldl, room);
}
static void attend_back(int wide, const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int32_t *spans, int nspans, int own, int first, int n, int part, const float *d, long ldo, const float *lse, long ldl, float *dq, long lddq, int nq, float *dkv, float *before, int from, long lddkv, int nk, float *room) {
  BOTH(wide, attend_back, q, ldq, kv, ldkv, voff, heads, hd, scale, window, cap, bias, ldb, spans, nspans, own, first, n, part, d, ldo, lse, ldl, dq, lddq, nq, dkv, before, from, lddkv, nk, room);
}
static void gated(int wide, int kind, const float *g, const float *u, float *o, int n) { BOTH(wide, gated, kind, g, u, o, n); }
static void gated_back(int wide, int kind, const float *g, const float *u, const float *d, float *dg, float *du, int n) { BOTH(wide, gated_back, kind, g, u, d, dg, du, n); }
static void act(int wide, int kind, const float *x, float *o, int n) { BOTH(wide, act, kind, x, o, n); }
static void act_back(int wide, int kind, const float *x, const float *d, float *dx, int n) { BOTH(wide, act_back, kind, x, d, dx, n); }
static void rms_norm(int wide, const float *x, const float *w, float eps, float *o, int n) { BOTH(wide, rms_norm, x, w, eps, o, n); }
static void rms_norm_back(int wide, const float *d, const float *x, const float *w, float eps, float *dx, int n) { BOTH(wide, rms_norm_back, d, x, w, eps, dx, n); }
static void layer_norm(int wide, const float *x, const float *w, const float *b, float eps, float *o, int n) { BOTH(wide, layer_norm, x, w, b, eps, o, n); }
static void layer_norm_back(int wide, const float *d, const float *x, const float *w, float eps, float *dx, int n) { BOTH(wide, layer_norm_back, d, x, w, eps, dx, n); }
static void add(int wide, const float *a, const float *b, float *o, int n) { BOTH(wide, add, a, b, o, n); }
static float peak(int wide, long n, const float *x) { return BOTH(wide, peak, n, x); }
static void rotate(int wide, float *x, int heads, int dim, int half, const float *c, const float *s, float sign) { BOTH(wide, rotate, x, heads, dim, half, c, s, sign); }
static double softmax_part(int wide, float *l, int n, float *max) { return BOTH(wide, softmax_part, l, n, max); }
*/
import "C"

import "unsafe"

func nativeSet(name string, wide C.int, mr, lanes int) set {
	return set{
		name: name, mr: mr, nr: 2 * lanes, group: 64 / lanes, panel: 8192, // as in body.h
		block: func(k int) int { return mr * k },
		pack: func(x Matrix, _ bool, b0, b1 int, ap []float32) {
			C.pack(wide, ptr(x.Data), C.long(x.Stride), C.int(x.Rows), C.int(x.Cols), C.int(b0), C.int(b1), ptr(ap))
		},
		product: func(ap []float32, m, k int, w Weight, inOut bool, n0, n1 int, out Matrix, add bool, bp []float32) {
			C.product(wide, ptr(ap), C.int(m), C.int(k), unsafe.Pointer(&w.Data[0]), C.int(w.DType), flag(inOut), C.long(w.Stride),
				C.int(n0), C.int(n1), ptr(out.Data), C.long(out.Stride), flag(add), ptr(bp))
		},
		fewRows: [...]int{F32: 16, BF16: 16, F16: 16},
		few: func(x Matrix, w Weight, inOut bool, n0, n1 int, out Matrix, add bool) {
			C.few(wide, ptr(x.Data), C.long(x.Stride), C.int(x.Rows), C.int(x.Cols), unsafe.Pointer(&w.Data[0]), C.int(w.DType), flag(inOut), C.long(w.Stride),
				C.int(n0), C.int(n1), ptr(out.Data), C.long(out.Stride), flag(add))
		},
		attend: func(a *attention, head int, u unit, room []float32) {
			h := head * a.share()
			kv, key, value := a.head(head)
			C.attend(wide, at(a.q, u.row(), h*a.Dim), C.long(a.q.Stride), at(kv, 0, key), C.long(kv.Stride), C.int(value-key), C.int(a.share()), C.int(a.Dim), C.float(a.Scale), C.int(a.Window), C.float(a.Cap), a.biases(h), a.ldb(),
				spans(u.Group), C.int(len(u.Spans)/2), C.int(u.Own), C.int(u.first), C.int(u.n), C.int(a.part(u)), at(a.out, u.row(), h*a.Dim), C.long(a.out.Stride), at(a.lse, u.row(), h), C.long(a.lse.Stride), ptr(room))
		},
		attendBack: func(a *attention, head int, u unit, before Matrix, from int, room []float32) {
			h, nq := head*a.share(), max(0, min(u.n, a.dq.Rows-u.row()))
			var dq, sums *C.float
			if nq > 0 {
				dq = at(a.dq, u.row(), h*a.Dim)
			}
			if before.Rows > 0 {
				sums = at(before, 0, head*a.Dim)
			}
			C.attend_back(wide, at(a.q, u.row(), h*a.Dim), C.long(a.q.Stride), at(a.kv, 0, head*a.Dim), C.long(a.kv.Stride), C.int(a.KV*a.Dim), C.int(a.share()), C.int(a.Dim), C.float(a.Scale), C.int(a.Window), C.float(a.Cap), a.biases(h), a.ldb(),
				spans(u.Group), C.int(len(u.Spans)/2), C.int(u.Own), C.int(u.first), C.int(u.n), C.int(a.part(u)), at(a.out, u.row(), h*a.Dim), C.long(a.out.Stride), at(a.lse, u.row(), h), C.long(a.lse.Stride),
				dq, C.long(a.dq.Stride), C.int(nq), at(a.dkv, 0, head*a.Dim), sums, C.int(from), C.long(a.dkv.Stride), C.int(a.dkv.Rows), ptr(room))
		},
		gated: func(act Activation, gate, up, out []float32) {
			C.gated(wide, C.int(act), ptr(gate), ptr(up), ptr(out), C.int(len(gate)))
		},
		gatedBack: func(act Activation, gate, up, d, dgate, dup []float32) {
			C.gated_back(wide, C.int(act), ptr(gate), ptr(up), ptr(d), ptr(dgate), ptr(dup), C.int(len(gate)))
		},
		act: func(act Activation, x, out []float32) { C.act(wide, C.int(act), ptr(x), ptr(out), C.int(len(x))) },
		actBack: func(act Activation, x, d, dx []float32) {
			C.act_back(wide, C.int(act), ptr(x), ptr(d), ptr(dx), C.int(len(x)))
		},
		rmsNorm: func(o, x, w []float32, eps float32) {
			C.rms_norm(wide, ptr(x), ptr(w), C.float(eps), ptr(o), C.int(len(o)))
		},
		rmsNormBack: func(o, d, x, w []float32, eps float32) {
			C.rms_norm_back(wide, ptr(d), ptr(x), ptr(w), C.float(eps), ptr(o), C.int(len(o)))
		},
		layerNorm: func(o, x, w, b []float32, eps float32) {
			C.layer_norm(wide, ptr(x), ptr(w), ptr(b), C.float(eps), ptr(o), C.int(len(o)))
		},
		layerNormBack: func(o, d, x, w []float32, eps float32) {
			C.layer_norm_back(wide, ptr(d), ptr(x), ptr(w), C.float(eps), ptr(o), C.int(len(o)))
		},
		peak: func(n int, x []float32) float64 {
			C.peak(wide, C.long(n), ptr(x))
			return float64(n) * 4 * float64(mr*lanes)
		},
		add: func(o, a, b []float32) { C.add(wide, ptr(a), ptr(b), ptr(o), C.int(len(o))) },
		rotate: func(x []float32, dim int, cos, sin []float32, sign float32) {
			C.rotate(wide, ptr(x), C.int(len(x)/dim), C.int(dim), C.int(len(cos)), ptr(cos), ptr(sin), C.float(sign))
		},
		softmaxPart: func(l []float32, most *float32) float64 {
			return float64(C.softmax_part(wide, ptr(l), C.int(len(l)), (*C.float)(most)))
		},
	}
}

func ptr(x []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(x))) }

func at(m Matrix, row, col int) *C.float { return ptr(m.Data[row*m.Stride+col:]) }

// biases are those of head h and, ldb floats on, of the heads behind it.
func (a *attention) biases(h int) *C.float {
	if a.Bias == nil {
		return nil
	}
	return ptr(a.Bias.row(h))
}

func (a *attention) ldb() C.long {
	if a.Bias == nil {
		return 0
	}
	return C.long(a.Bias.positions())
}

func spans(g Group) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(g.Spans))) }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
