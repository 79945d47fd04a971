// Package kernels has the arithmetic of a step: products with frozen weights, attention over a packed forest, norms,
// rotary positions, gated activations and the loss. It knows float slices, sizes, CPU features and threads, nothing of
// graphs or files.
//
// Each kernel exists as a plain Go loop (plain.go), which runs everywhere and is the oracle of the tests, and the
// expensive ones also in C for AVX2 and AVX-512 (body.h). Work is shared out over output tiles, rows or heads, never over
// a summed dimension, so results do not depend on the number of threads.
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

// NewMatrix is a matrix of its own, all zero.
func NewMatrix(rows, cols int) Matrix { return View(make([]float32, rows*cols), rows, cols) }

// View reads data as a dense [rows, cols] matrix.
func View(data []float32, rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
}

// Row is row i, of Cols values.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// Columns is the view of the columns from <= c < from+n.
func (m Matrix) Columns(from, n int) Matrix {
	if m.Rows == 0 {
		return Matrix{Cols: n, Stride: m.Stride}
	}
	return Matrix{Rows: m.Rows, Cols: n, Stride: m.Stride, Data: m.Data[from:]}
}

// Top is the view of the first n rows.
func (m Matrix) Top(n int) Matrix {
	return Matrix{Rows: n, Cols: m.Cols, Stride: m.Stride, Data: m.Data}
}

// DType is the type of a weight in its file.
type DType int

// The types a weight may have; the order is that of body.h.
const (
	F32 DType = iota
	BF16
	F16
)

// Size is the number of bytes of one value.
func (d DType) Size() int {
	if d == F32 {
		return 4
	}
	return 2
}

func (d DType) String() string { return [...]string{"F32", "BF16", "F16"}[d] }

// Weight is a frozen [Out, In] matrix in its file's own type; y = x Wᵀ maps In values to Out.
type Weight struct {
	Name    string
	Data    []byte // from the first value; aligned to the type's size
	DType   DType
	Out, In int
	Stride  int  // values from one stored row to the next
	From    int  // the output of the stored matrix that is its first, where it is a part
	InOut   bool // stored [In, Out], as GPT-2's Conv1D is
}

// OutRange is the part of w that makes the outputs from <= o < from+n.
func (w Weight) OutRange(from, n int) Weight {
	step := w.Stride
	if w.InOut {
		step = 1
	}
	w.From += from
	w.Data = w.Data[from*step*w.DType.Size():]
	w.Out = n
	return w
}

// set is the kernels of one instruction set.
type set struct {
	name          string
	mr, nr        int             // rows that pack takes at a time, columns of a panel
	block         func(k int) int // floats of mr packed rows of k values
	group         int             // panels of a share of work, at most
	taper         bool            // shares become smaller towards the end
	panel         int             // floats of the room for panels of weights
	pack          func(x Matrix, inOut bool, b0, b1 int, ap []float32)
	product       func(ap []float32, m, k int, w Weight, inOut bool, n0, n1 int, out Matrix, add bool, bp []float32) // nil: the plain loop
	few           func(x Matrix, w Weight, inOut bool, n0, n1 int, out Matrix, add bool)
	fewRows       [3]int // up to how many rows few is used for each type of weight, four if stored [In, Out]: making panels would cost more
	once          int    // up to so many rows product takes a weight stored [Out, In] from memory as it comes, in shares of any size
	attend        func(a *attention, head int, u unit, room []float32)
	attendBack    func(a *attention, head int, u unit, before Matrix, from int, room []float32) // the gradients of the keys before from are added to before, of others to a.dkv
	gated         func(act Activation, gate, up, out []float32)
	gatedBack     func(act Activation, gate, up, d, dgate, dup []float32)
	act           func(act Activation, x, out []float32)
	actBack       func(act Activation, x, d, dx []float32)
	softmaxPart   func(l []float32, most *float32) float64
	rmsNorm       func(o, x, w []float32, eps float32)
	rmsNormBack   func(o, d, x, w []float32, eps float32)
	layerNorm     func(o, x, w, b []float32, eps float32)
	layerNormBack func(o, d, x, w []float32, eps float32)
	add           func(o, a, b []float32)
	peak          func(n int, x []float32) float64 // n rounds of multiply-adds on registers; returns their FLOPs
	rotate        func(x []float32, dim int, cos, sin []float32, sign float32)
}

func plainSet() set {
	return set{name: "plain", attend: plainAttend, attendBack: plainAttendBack, gated: plainGated, gatedBack: plainGatedBack,
		act: plainAct, actBack: plainActBack, softmaxPart: plainSoftmaxPart,
		rmsNorm: plainRMSNorm, rmsNormBack: plainRMSNormBack, layerNorm: plainLayerNorm, layerNormBack: plainLayerNormBack,
		add: plainAdd, rotate: plainRotate}
}

// Names lists the kernel sets this program has on this CPU for products of that type, the slowest first.
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

// choose finds the set of that name; the empty name means the fastest.
func choose(name string, compute DType) (set, error) {
	all := sets(compute)
	if len(all) == 0 {
		return set{}, fmt.Errorf("this CPU has no products of %v", compute)
	}
	if name == "" {
		return all[len(all)-1], nil
	}
	for _, s := range all {
		if s.name == name {
			return s, nil
		}
	}
	what := "kernels"
	if compute != F32 {
		what = fmt.Sprintf("kernels with products of %v", compute)
	}
	return set{}, fmt.Errorf("%s %q are not to be had on this CPU; it has: %s", what, name, strings.Join(Names(compute), ", "))
}
