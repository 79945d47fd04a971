// Package kernels computes a training or decoding step: products with frozen weights, attention over
// a packed forest, norms, rotary positions, gated activations and the loss. It knows float slices,
// weight formats, CPU features and threads, and nothing of graphs or files.
//
// Each kernel exists as a plain Go loop (plain.go and, for norms, activations and positions, beside
// the exported function). The plain loops run everywhere and are the oracle of the tests. The C
// kernels are written once with vector extensions, product.h, rowwise.h and attention.h, and are
// compiled for AVX2, AVX-512 and NEON; bf16.h has products for AVX-512's bf16 instructions and AMX.
// Go passes them the structs of args.h (native.go).
//
// Threads share output tiles, rows or heads, never a summed dimension, so results do not depend on
// the number of threads. All kernels of a set add up the values of a result in the same order, so
// the forward results of a row do not depend on the other rows of a call either, nor on their number.
package kernels

import (
	"fmt"
	"strings"
)

// Matrix is a row-major view of f32 values: row i begins at Data[i*Stride].
type Matrix struct {
	Rows, Cols, Stride int
	Data               []float32
}

// NewMatrix returns a matrix of zeros with memory of its own.
func NewMatrix(rows, cols int) Matrix { return View(make([]float32, rows*cols), rows, cols) }

// View returns data as a dense [rows, cols] matrix.
func View(data []float32, rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
}

// Row returns row i, Cols values.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// Columns returns the view of the columns from <= c < from+n.
func (m Matrix) Columns(from, n int) Matrix {
	if m.Rows == 0 {
		return Matrix{Cols: n, Stride: m.Stride}
	}
	return Matrix{Rows: m.Rows, Cols: n, Stride: m.Stride, Data: m.Data[from:]}
}

// Top returns the view of the first n rows.
func (m Matrix) Top(n int) Matrix {
	return Matrix{Rows: n, Cols: m.Cols, Stride: m.Stride, Data: m.Data}
}

// Weight is a frozen [Out, In] matrix in its file's format; y = x Wᵀ maps In values to Out.
type Weight struct {
	Name    string
	Data    []byte // begins with the first value; aligned to DType.Align
	DType   DType
	Out, In int
	Stride  int  // values from one stored row to the next
	From    int  // if this is a part (OutRange): its first output in the stored matrix
	InOut   bool // stored [In, Out], as GPT-2's Conv1D is
	// Pairs, if not 0, tells that the outputs of each head of this many values are stored in pairs: 0,
	// Pairs/2, 1, Pairs/2+1 and so on, as in llama.cpp's files. Products have them in order. Only with
	// whole heads and stored [Out, In].
	Pairs int
}

// StoredRow returns the row of a weight stored [Out, In] that makes output i.
func (w Weight) StoredRow(i int) int {
	if w.Pairs == 0 {
		return i
	}
	half, at := w.Pairs/2, i%w.Pairs
	return i - at + at%half*2 + at/half
}

// OutRange returns the part of w that makes the outputs from <= o < from+n. If w is stored
// [In, Out], from must be the beginning of a block of its format.
func (w Weight) OutRange(from, n int) Weight {
	step := w.Stride
	if w.InOut {
		step = 1
	}
	w.From += from
	w.Data = w.Data[w.DType.Bytes(from*step):]
	w.Out = n
	return w
}

// set is the kernels of one instruction set. The functions mean what the exported functions of Pool
// mean, for one row or one share of the work.
type set struct {
	name string

	// Products. pack takes the blocks b0 <= b < b1 of x, blockRows rows each, and product multiplies
	// them with the columns n0 <= n < n1. If product is nil, the plain loop multiplies.
	blockRows     int
	blockFloats   func(cols int) int // size of a packed block
	panelCols     int                // columns of a panel of weights
	sharePanels   int                // panels in a share of the work, at most
	taper         bool               // shares get smaller towards the end
	scratchFloats int                // scratch for panels
	pack          func(x Matrix, inOut bool, b0, b1 int, packed []float32)
	product       func(packed []float32, m, k int, w Weight, inOut, unpacked bool, n0, n1 int, out Matrix,
		add bool, scratch []float32)

	// few multiplies at most fewRows rows of x, which are not packed, and makes no panels; nil: product
	// takes these, too.
	few func(x Matrix, w Weight, inOut bool, n0, n1 int, out Matrix, add bool)
	// At most this many rows: product can read weights stored [n, k] unpacked, and shares may have any
	// size.
	unpackedRows int

	// floats writes value at + r ld + i of a quantised weight to out[r n + i], for r < rows and i < n.
	// at, ld and n are multiples of 16.
	floats func(out []float32, data []byte, t DType, at, ld, rows, n int)

	attend func(a *attention, head int, u unit, scratch []float32)
	// attendBack adds the gradients of key rows < from to before, of others to a.dkv.
	attendBack func(a *attention, head int, u unit, before Matrix, from int, scratch []float32)

	gated         func(act Activation, gate, up, out []float32)
	gatedBack     func(act Activation, gate, up, d, dgate, dup []float32)
	act           func(act Activation, x, out []float32)
	actBack       func(act Activation, x, d, dx []float32)
	softmaxPart   func(l []float32, most *float32) float64
	rmsNorm       func(out, x, w []float32, eps float32)
	rmsNormBack   func(dx, d, x, w []float32, eps float32)
	layerNorm     func(out, x, w, b []float32, eps float32)
	layerNormBack func(dx, d, x, w []float32, eps float32)
	add           func(out, a, b []float32)
	rotate        func(x []float32, dim int, cos, sin []float32, sign float32)
	peak          func(rounds int, x []float32) float64 // multiply-adds; returns their FLOPs
}

func plainSet() set {
	return set{name: "plain", floats: plainFloats, attend: plainAttend, attendBack: plainAttendBack,
		gated: plainGated, gatedBack: plainGatedBack, act: plainAct, actBack: plainActBack,
		softmaxPart: plainSoftmaxPart, rmsNorm: plainRMSNorm, rmsNormBack: plainRMSNormBack,
		layerNorm: plainLayerNorm, layerNormBack: plainLayerNormBack,
		add: plainAdd, rotate: plainRotate}
}

// Names returns the kernel sets that this CPU can run with products of that type, the slowest first.
func Names(compute DType) []string {
	var names []string
	for _, s := range sets(compute) {
		names = append(names, s.name)
	}
	return names
}

func sets(compute DType) []set {
	if compute == F32 {
		return append([]set{plainSet()}, nativeSets(compute)...)
	}
	return nativeSets(compute)
}

// findSet returns the kernel set of that name, or the fastest if the name is empty.
func findSet(name string, compute DType) (set, error) {
	all := sets(compute)
	if len(all) == 0 {
		return set{}, fmt.Errorf("this CPU has no %v instructions", compute)
	}
	if name == "" {
		return all[len(all)-1], nil
	}
	for _, s := range all {
		if s.name == name {
			return s, nil
		}
	}
	what := "kernel set"
	if compute != F32 {
		what = fmt.Sprintf("kernel set with %v products", compute)
	}
	return set{}, fmt.Errorf("%s %q is not available on this CPU, want one of: %s", what, name,
		strings.Join(Names(compute), ", "))
}
