//go:build cgo && (amd64 || arm64)

package kernels

/*
#cgo CFLAGS: -O3 -std=gnu11
#cgo LDFLAGS: -lm
#include "args.h"

// Go cannot call function pointers. Arguments are passed by value, because a Go struct with pointers
// to Go memory must not be passed by address.
static void call_pack(pack_kernel *f, pack_args a) { f(&a); }
static void call_product(product_kernel *f, product_args a) { f(&a); }
static void call_floats(floats_kernel *f, floats_args a) { f(&a); }
static void call_attend(attend_kernel *f, attend_args a) { f(&a); }
static void call_attend_back(attend_back_kernel *f, attend_back_args a) { f(&a); }
static void call_norm(norm_kernel *f, norm_args a) { f(&a); }
static void call_act(act_kernel *f, act_args a) { f(&a); }
static void call_add(add_kernel *f, const float *a, const float *b, float *out, int n) {
  f(a, b, out, n);
}
static void call_rotate(rotate_kernel *f, float *x, int heads, int dim, int half, const float *cos,
                        const float *sin, float sign) {
  f(x, heads, dim, half, cos, sin, sign);
}
static double call_softmax_part(softmax_part_kernel *f, float *l, int n, float *max) {
  return f(l, n, max);
}
static float call_peak(peak_kernel *f, long n, const float *x) { return f(n, x); }
*/
import "C"

import "unsafe"

// This compiles only if the enumerations of Go and of C agree.
var (
	_ = [1]int{}[C.F32-F32|C.BF16-BF16|C.F16-F16]
	_ = [1]int{}[C.Q8_0-Q8_0|C.Q4_0-Q4_0|C.Q4_1-Q4_1|C.Q5_0-Q5_0|C.Q5_1-Q5_1|C.Q2_K-Q2_K|
		C.Q3_K-Q3_K|C.Q4_K-Q4_K|C.Q5_K-Q5_K|C.Q6_K-Q6_K|C.IQ4_NL-IQ4_NL|C.IQ4_XS-IQ4_XS]
	_ = [1]int{}[C.SILU-SiLU|C.GELU_TANH-GELUTanh|C.GELU-GELU|C.RELU-ReLU]
)

// nativeSet returns the kernel set with the functions of a table in C.
func nativeSet(name string, k *C.kernel_set) set {
	s := set{
		name: name,
		floats: func(out []float32, data []byte, t DType, at, ld, rows, n int) {
			C.call_floats(k.floats, C.floats_args{
				w: (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(data))), format: C.int(t),
				at: C.long(at), ld: C.long(ld), rows: C.int(rows), n: C.int(n), out: ptr(out)})
		},
		attend: func(a *attention, head int, u unit, scratch []float32) {
			C.call_attend(k.attend, a.args(head, u, scratch))
		},
		attendBack: func(a *attention, head int, u unit, before Matrix, from int, scratch []float32) {
			C.call_attend_back(k.attend_back, a.backArgs(head, u, before, from, scratch))
		},
		gated: func(act Activation, gate, up, out []float32) {
			C.call_act(k.gated, C.act_args{kind: C.int(act), x: ptr(gate), up: ptr(up),
				out: ptr(out), n: C.int(len(gate))})
		},
		gatedBack: func(act Activation, gate, up, d, dgate, dup []float32) {
			C.call_act(k.gated_back, C.act_args{kind: C.int(act), x: ptr(gate), up: ptr(up),
				d: ptr(d), out: ptr(dgate), dup: ptr(dup), n: C.int(len(gate))})
		},
		act: func(act Activation, x, out []float32) {
			C.call_act(k.act, C.act_args{kind: C.int(act), x: ptr(x), out: ptr(out),
				n: C.int(len(x))})
		},
		actBack: func(act Activation, x, d, dx []float32) {
			C.call_act(k.act_back, C.act_args{kind: C.int(act), x: ptr(x), d: ptr(d), out: ptr(dx),
				n: C.int(len(x))})
		},
		rmsNorm: func(out, x, w []float32, eps float32) {
			C.call_norm(k.rms_norm, C.norm_args{x: ptr(x), w: ptr(w), eps: C.float(eps),
				out: ptr(out), n: C.int(len(out))})
		},
		rmsNormBack: func(dx, d, x, w []float32, eps float32) {
			C.call_norm(k.rms_norm_back, C.norm_args{x: ptr(x), w: ptr(w), d: ptr(d),
				eps: C.float(eps), out: ptr(dx), n: C.int(len(dx))})
		},
		layerNorm: func(out, x, w, b []float32, eps float32) {
			C.call_norm(k.layer_norm, C.norm_args{x: ptr(x), w: ptr(w), b: ptr(b),
				eps: C.float(eps), out: ptr(out), n: C.int(len(out))})
		},
		layerNormBack: func(dx, d, x, w []float32, eps float32) {
			C.call_norm(k.layer_norm_back, C.norm_args{x: ptr(x), w: ptr(w), d: ptr(d),
				eps: C.float(eps), out: ptr(dx), n: C.int(len(dx))})
		},
		add: func(out, a, b []float32) {
			C.call_add(k.add, ptr(a), ptr(b), ptr(out), C.int(len(out)))
		},
		rotate: func(x []float32, dim int, cos, sin []float32, sign float32) {
			C.call_rotate(k.rotate, ptr(x), C.int(len(x)/dim), C.int(dim), C.int(len(cos)),
				ptr(cos), ptr(sin), C.float(sign))
		},
		softmaxPart: func(l []float32, most *float32) float64 {
			return float64(C.call_softmax_part(k.softmax_part, ptr(l), C.int(len(l)),
				(*C.float)(most)))
		},
		peak: func(rounds int, x []float32) float64 {
			C.call_peak(k.peak, C.long(rounds), ptr(x))
			return float64(rounds) * float64(k.peak_flops)
		},
	}
	s.setProducts(&k.products, 0)
	return s
}

// setProducts gives the set the products of a table in C. Values of x are packed as f32 if parts is
// 0, else as the sum of that many bf16.
func (s *set) setProducts(k *C.product_kernels, parts int) {
	packedBytes := 4 // of a value
	if parts > 0 {
		packedBytes = 2 * parts
	}
	weightParts := func(d DType) int { return min(parts, formats[d].parts) }
	blockRows, depth := int(k.block_rows), int(k.depth)
	s.blockRows, s.panelCols, s.sharePanels = blockRows, int(k.panel_columns), int(k.share_panels)
	s.scratchFloats = int(k.scratch_floats) * packedBytes / 4
	s.blockFloats = func(cols int) int {
		return (cols + depth - 1) / depth * depth * blockRows * packedBytes / 4
	}
	s.pack = func(x Matrix, inOut bool, b0, b1 int, packed []float32) {
		C.call_pack(k.pack, C.pack_args{x: ptr(x.Data), ldx: C.long(x.Stride), m: C.int(x.Rows),
			k: C.int(x.Cols), parts: C.int(parts), in_out: flag(inOut), b0: C.int(b0),
			b1: C.int(b1), packed: ptr(packed)})
	}
	s.few, s.unpackedRows = nil, 0
	if k.few_rows != nil {
		s.few = func(x Matrix, w Weight, inOut bool, n0, n1 int, out Matrix, add bool) {
			a := productArgs(w, inOut, n0, n1, out, add)
			a.x, a.ldx, a.m, a.k = ptr(x.Data), C.long(x.Stride), C.int(x.Rows), C.int(x.Cols)
			C.call_product(k.few_rows, a)
		}
	}
	if k.few_packed != nil {
		s.unpackedRows = 16
	}
	s.product = func(packed []float32, m, cols int, w Weight, inOut, unpacked bool, n0, n1 int, out Matrix,
		add bool, scratch []float32) {
		a := productArgs(w, inOut, n0, n1, out, add)
		a.x, a.m, a.k, a.scratch = ptr(packed), C.int(m), C.int(cols), ptr(scratch)
		a.xparts, a.wparts = C.int(parts), C.int(weightParts(w.DType))
		if unpacked {
			C.call_product(k.few_packed, a)
		} else {
			C.call_product(k.product, a)
		}
	}
}

// productArgs returns the arguments that say nothing of x.
func productArgs(w Weight, inOut bool, n0, n1 int, out Matrix, add bool) C.product_args {
	return C.product_args{w: (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(w.Data))),
		format: C.int(w.DType), in_out: flag(inOut), ldw: C.long(w.Stride), n0: C.int(n0),
		n1: C.int(n1), out: ptr(out.Data), ldo: C.long(out.Stride), add: flag(add)}
}

// args returns the arguments of a unit's attention over one key head.
func (a *attention) args(head int, u unit, scratch []float32) C.attend_args {
	h := head * a.headsPerKey()
	kv, key, value := a.head(head)
	args := C.attend_args{
		q: at(a.q, u.row(), h*a.Dim), ldq: C.long(a.q.Stride),
		kv: at(kv, 0, key), ldkv: C.long(kv.Stride), value: C.int(value - key),
		heads: C.int(a.headsPerKey()), dim: C.int(a.Dim),
		scale: C.float(a.Scale), window: C.int(a.Window), cap: C.float(a.Cap),
		spans:  (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(u.Spans))),
		nspans: C.int(len(u.Spans) / 2), own: C.int(u.Own), first: C.int(u.first), n: C.int(u.n),
		rows_at_once: C.int(a.rowsAtOnce(u)),
		out:          at(a.out, u.row(), h*a.Dim), ldo: C.long(a.out.Stride),
		lse: at(a.lse, u.row(), h), ldl: C.long(a.lse.Stride),
		scratch: ptr(scratch),
	}
	if a.Bias != nil {
		args.bias, args.ldb = ptr(a.Bias.row(h)), C.long(a.Bias.positions())
	}
	return args
}

// backArgs returns the arguments of the gradients of a unit's attention over one key head.
func (a *attention) backArgs(head int, u unit, before Matrix, from int,
	scratch []float32) C.attend_back_args {
	nq := max(0, min(u.n, a.dq.Rows-u.row()))
	args := C.attend_back_args{
		of:   a.args(head, u, scratch),
		lddq: C.long(a.dq.Stride), nq: C.int(nq),
		dkv: at(a.dkv, 0, head*a.Dim), lddkv: C.long(a.dkv.Stride),
		from: C.int(from), nk: C.int(a.dkv.Rows),
	}
	if nq > 0 {
		args.dq = at(a.dq, u.row(), head*a.headsPerKey()*a.Dim)
	}
	if before.Rows > 0 {
		args.before = at(before, 0, head*a.Dim)
	}
	return args
}

func ptr(x []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(x))) }

func at(m Matrix, row, col int) *C.float { return ptr(m.Data[row*m.Stride+col:]) }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
