package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"ptune/internal/process"
)

// The tests compare every kernel set with the plain loops. Slices lie between guard values, so that a
// kernel that writes outside them is found.

const guard = float32(-12345.5)

type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 1))} }

// floats returns n normal values with 41 guard values before and 40 behind them, so that they
// begin at an odd place.
func (s source) floats(n int) []float32 {
	all := make([]float32, n+81)
	for i := range all {
		all[i] = guard
	}
	for i := range n {
		all[41+i] = float32(s.NormFloat64())
	}
	return all[41 : 41+n]
}

// guarded reports whether the 40 guard values behind x and the one before it are unchanged.
func guarded(x []float32) bool {
	for _, v := range x[len(x) : len(x)+40] {
		if v != guard {
			return false
		}
	}
	return *(*float32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(x)), -4)) == guard
}

func (s source) matrix(rows, cols int) Matrix {
	pad := s.IntN(3)
	return Matrix{Rows: rows, Cols: cols, Stride: cols + pad, Data: s.floats(rows * (cols + pad))}
}

// weight returns a weight of normal values in a format; F16 values span all of F16's range.
func (s source) weight(out, in int, t DType, inOut bool) Weight {
	w := Weight{Name: "w", DType: t, Out: out, In: in, Stride: in, InOut: inOut}
	if inOut {
		w.Stride = out
	}
	for range out * in {
		f := float32(s.NormFloat64())
		switch t {
		case F32:
			w.Data = binary.LittleEndian.AppendUint32(w.Data, math.Float32bits(f))
		case BF16:
			w.Data = binary.LittleEndian.AppendUint16(w.Data, uint16(math.Float32bits(f)>>16))
		case F16:
			bits := uint16(s.IntN(0x7c00)) | uint16(s.IntN(2))<<15&0x8000
			w.Data = binary.LittleEndian.AppendUint16(w.Data, bits)
		default:
			panic("kernels: no test weights of format " + t.String())
		}
	}
	return w
}

func (m Matrix) clone() Matrix {
	m.Data = slices.Clone(m.Data)
	return m
}

func (m Matrix) values() []float32 {
	var v []float32
	for i := range m.Rows {
		v = append(v, m.Row(i)...)
	}
	return v
}

// closeTo fails unless got equals want within tol times the largest value of want.
func closeTo(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	top := 1e-30
	for _, v := range want {
		top = max(top, math.Abs(float64(v)))
	}
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= tol*top) {
			t.Fatalf("%s: value %d is %g, want %g (largest %g)", what, i, got[i], want[i], top)
		}
	}
}

// each runs f with a pool p for every kernel set and one or three threads, and a plain pool.
func each(t *testing.T, f func(t *testing.T, p, plain *Pool)) {
	plain, err := New(Options{Threads: 1, Kernels: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for _, name := range Names(F32) {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", name, threads), func(t *testing.T) {
				p, err := New(Options{Threads: threads, Kernels: name})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				f(t, p, plain)
			})
		}
	}
}

func TestProductsEqualThePlainLoop(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(1)
		for _, m := range []int{1, 2, 4, 5, 8, 11, 13, 16, 40} {
			for _, n := range []int{1, 7, 16, 32, 33, 70, 129} {
				k := []int{1, 8, 15, 17, 64, 530}[s.IntN(6)]
				typ, inOut, add := DType(s.IntN(int(F16)+1)), s.IntN(2) == 0, s.IntN(2) == 0
				w := s.weight(n, k, typ, inOut)
				what := fmt.Sprintf("m %d n %d k %d %v inOut %v add %v", m, n, k, typ, inOut, add)
				x, got := s.matrix(m, k), s.matrix(m, n)
				want := got.clone()
				edge := got.clone()
				p.product([]Matrix{got}, x, []Weight{w}, inOut, add)
				plain.product([]Matrix{want}, x, []Weight{w}, inOut, add)
				closeTo(t, what, got.values(), want.values(), 1e-5)
				gaps(t, what, got, edge)
				d, dx := s.matrix(m, n), s.matrix(m, k)
				want = dx.clone()
				edge = dx.clone()
				p.ProductBack(dx, d, w, add)
				plain.ProductBack(want, d, w, add)
				closeTo(t, what+" back", dx.values(), want.values(), 1e-5)
				gaps(t, what, dx, edge)
			}
		}
	})
}

// gaps fails if a value between the rows of a matrix or around it has changed.
func gaps(t *testing.T, what string, got, before Matrix) {
	t.Helper()
	for i := range got.Rows {
		for c := got.Cols; c < got.Stride; c++ {
			if at := i*got.Stride + c; got.Data[at] != before.Data[at] {
				t.Fatalf("%s: a value behind row %d was overwritten", what, i)
			}
		}
	}
	if !guarded(got.Data) {
		t.Fatalf("%s: a guard value was overwritten", what)
	}
}

func TestProductsInBF16RoundOnlyTheirInputs(t *testing.T) {
	plain, err := New(Options{Threads: 1, Kernels: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	names := Names(BF16)
	if len(names) == 0 {
		if _, err := New(Options{Compute: BF16}); err == nil {
			t.Fatal("New(bf16) succeeded on a CPU without bf16")
		}
		t.Log("this CPU has no products in bf16")
	}
	for _, name := range names {
		p, err := New(Options{Threads: 2, Kernels: name, Compute: BF16})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s := newSource(8)
		for _, c := range []struct{ m, n, k int }{
			{5, 7, 9}, {13, 40, 192}, {17, 33, 64}, {40, 129, 700}, {70, 300, 31},
		} {
			for _, typ := range []DType{F32, BF16, F16} {
				for _, inOut := range []bool{false, true} {
					w, x := s.weight(c.n, c.k, typ, inOut), s.matrix(c.m, c.k)
					got, want := s.matrix(c.m, c.n), NewMatrix(c.m, c.n)
					edge := got.clone()
					p.Product(got, x, w)
					rounded := w // both factors to the nearest bf16, then the plain loop
					rounded.DType, rounded.Data = BF16, nil
					for i := range c.n * c.k {
						bits := math.Float32bits(Float(w.Data, typ, i)) + 0x8000
						rounded.Data = binary.LittleEndian.AppendUint16(rounded.Data, uint16(bits>>16))
					}
					near := x.clone()
					for i, v := range near.Data {
						near.Data[i] = math.Float32frombits((math.Float32bits(v) + 0x8000) &^ 0xffff)
					}
					plain.Product(want, near, rounded)
					what := fmt.Sprintf("%s: m %d n %d k %d %v inOut %v", name, c.m, c.n, c.k, typ, inOut)
					closeTo(t, what, got.values(), want.values(), 1e-5)
					gaps(t, what, got, edge)
				}
			}
		}
	}
}

func TestProductsOfSeveralWeightsEqualThoseOfEach(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(9)
		for _, m := range []int{1, 3, 40} {
			x := s.matrix(m, 50)
			ws := []Weight{
				s.weight(48, 50, F32, false),
				s.weight(7, 50, BF16, true),
				s.weight(300, 50, F16, true),
			}
			got, want := make([]Matrix, 3), NewMatrix(m, 300)
			for i, w := range ws {
				got[i] = s.matrix(m, w.Out)
			}
			p.Products(got, x, ws)
			for i, w := range ws {
				part := want.Columns(0, w.Out)
				plain.Product(part, x, w)
				closeTo(t, fmt.Sprintf("m %d, weight %d", m, i), got[i].values(), part.values(), 1e-5)
			}
		}
	})
}

// The error, relative to the sum of the absolute products, is that of f32 rounding in every set: AMX
// adds up parts of numbers, but all of them.
func TestProductsAreAsAccurateAsF32Allows(t *testing.T) {
	each(t, func(t *testing.T, p, _ *Pool) {
		s := newSource(10)
		const m, n, k = 33, 40, 576
		for _, typ := range []DType{F32, BF16, F16} {
			w, x, got := s.weight(n, k, typ, false), s.matrix(m, k), NewMatrix(m, n)
			if typ == F16 { // the test values of F16 span too large a range
				for i := range n * k {
					binary.LittleEndian.PutUint16(w.Data[2*i:], uint16(0x3000+s.IntN(0x0c00)))
				}
			}
			p.Product(got, x, w)
			for i := range m {
				for j := range n {
					var exact, size float64
					for c := range k {
						v := float64(x.Row(i)[c]) * float64(Float(w.Data, typ, j*k+c))
						exact += v
						size += math.Abs(v)
					}
					if e := math.Abs(float64(got.Row(i)[j])-exact) / size; e > 4e-7 {
						t.Fatalf("%v: value %d, %d has a relative error of %g", typ, i, j, e)
					}
				}
			}
		}
	})
}

func TestOutRangeComputesThoseColumns(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(2)
		for _, inOut := range []bool{false, true} {
			w := s.weight(48, 20, BF16, inOut)
			x := s.matrix(9, 20)
			whole, part := NewMatrix(9, 48), NewMatrix(9, 16)
			plain.Product(whole, x, w)
			p.Product(part, x, w.OutRange(32, 16))
			closeTo(t, "columns 32..48", part.values(), whole.Columns(32, 16).values(), 1e-5)
		}
	})
}

// forest returns a prompt of 3 rows, a shared prefix of 2 and two leaves of 5 and 4.
func forest() []Group {
	return []Group{
		{Row: 0, N: 3, Own: 0},
		{Row: 3, N: 2, Own: 3, Spans: []int32{0, 3}},
		{Row: 5, N: 5, Own: 5, Spans: []int32{0, 3, 3, 5}},
		{Row: 10, N: 4, Own: 10, Spans: []int32{0, 3, 3, 5}},
	}
}

// longForest returns a prompt of 3 rows, a shared prefix of 70 and two leaves of 101 and 2:
// groups with several units, and keys that many units share.
func longForest() []Group {
	return []Group{
		{Row: 0, N: 3, Own: 0},
		{Row: 3, N: 70, Own: 3, Spans: []int32{0, 3}},
		{Row: 73, N: 101, Own: 73, Spans: []int32{0, 3, 3, 73}},
		{Row: 174, N: 2, Own: 174, Spans: []int32{0, 3, 3, 73}},
	}
}

func TestAttentionEqualsThePlainLoop(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(3)
		for i, c := range []struct {
			dim, rows int
			groups    []Group
		}{
			{1, 14, forest()}, {8, 14, forest()}, {20, 14, forest()}, {33, 14, forest()},
			{64, 14, forest()}, {64, 176, longForest()}, {20, 176, longForest()},
			{8, 14, forest()}, {20, 176, longForest()}, {20, 176, longForest()},
			{64, 176, longForest()}, {64, 176, longForest()}, {8, 14, forest()},
		} {
			h := Heads{Q: 6, KV: 2, Dim: c.dim, Scale: 0.3}
			switch i { // the last cases have a window, a cap or a bias
			case 7:
				h.Window = 4
			case 8:
				h.Window = 61
			case 9:
				h.Cap = 2
			case 10:
				h.Bias = NewALiBi(6)
			case 11, 12:
				h.Window, h.Cap, h.Bias = 5, 1.5, NewALiBi(6)
			}
			q, kv, d := s.matrix(c.rows, h.QCols()), s.matrix(c.rows, h.KVCols()), s.matrix(c.rows, h.QCols())
			got, want := s.matrix(c.rows, h.QCols()), NewMatrix(c.rows, h.QCols())
			lse, lse2 := NewMatrix(c.rows, 6), NewMatrix(c.rows, 6)
			edge := got.clone()
			p.Attend(got, lse, q, kv, h, c.groups)
			plain.Attend(want, lse2, q, kv, h, c.groups)
			closeTo(t, "out", got.values(), want.values(), 1e-5)
			closeTo(t, "lse", lse.values(), lse2.values(), 1e-5)
			gaps(t, "out", got, edge)
			for _, rows := range []int{c.rows, 3} {
				dq, dkv := s.matrix(rows, h.QCols()), s.matrix(rows, h.KVCols())
				wq, wkv := NewMatrix(rows, h.QCols()), NewMatrix(rows, h.KVCols())
				edgeQ, edgeKV := dq.clone(), dkv.clone()
				p.AttendBack(dq, dkv, d, lse, q, kv, h, c.groups)
				plain.AttendBack(wq, wkv, d, lse2, q, kv, h, c.groups)
				closeTo(t, "dq", dq.values(), wq.values(), 1e-5)
				closeTo(t, "dkv", dkv.values(), wkv.values(), 1e-5)
				gaps(t, "dq", dq, edgeQ)
				gaps(t, "dkv", dkv, edgeKV)
			}
		}
	})
}

// In decoding, each token is a group of its own, and keys and values are stored head by head.
func TestAttentionOfSingleRowsOverKeysByHeadEqualsThePlainLoop(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(5)
		for i, dim := range []int{1, 20, 33, 64, 80, 8, 64} {
			h := Heads{Q: 10, KV: 2, Dim: dim, Scale: 0.3}
			if i > 4 {
				h.Window, h.Cap, h.Bias = 5, 1.5, NewALiBi(10)
			}
			groups := []Group{
				{Row: 0, N: 1, Own: 0},
				{Row: 1, N: 1, Own: 90, Spans: []int32{0, 37, 40, 41}},
				{Row: 2, N: 1, Own: 17, Spans: []int32{2, 17}},
				{Row: 3, N: 2, Own: 60, Spans: []int32{5, 9}},
			}
			q, kv := s.matrix(5, h.QCols()), s.matrix(100, h.KVCols())
			byHead := NewMatrix(2*100, 2*dim)
			for c := range 2 {
				for r := range 100 {
					n := copy(byHead.OfHead(c, 2).Row(r), kv.Row(r)[c*dim:(c+1)*dim])
					copy(byHead.OfHead(c, 2).Row(r)[n:], kv.Row(r)[(2+c)*dim:(3+c)*dim])
				}
			}
			want, lseWant := NewMatrix(5, h.QCols()), NewMatrix(5, 10)
			plain.Attend(want, lseWant, q, kv, h, groups)
			for _, keys := range []Matrix{kv, byHead} {
				for _, p := range []*Pool{p, plain} {
					got, lse := s.matrix(5, h.QCols()), s.matrix(5, 10)
					edge := got.clone()
					p.Attend(got, lse, q, keys, h, groups)
					closeTo(t, "out", got.values(), want.values(), 1e-5)
					closeTo(t, "lse", lse.values(), lseWant.values(), 1e-5)
					gaps(t, "out", got, edge)
				}
			}
		}
	})
}

func TestActivationsAndLossEqualThePlainLoops(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(4)
		for _, n := range []int{1, 7, 8, 16, 17, 31, 100} {
			a, b, d := s.matrix(3, n), s.matrix(3, n), s.matrix(3, n)
			a.Data[0] = 80 // where e^x is large
			got, got2 := NewMatrix(3, n), NewMatrix(3, n)
			want, want2 := NewMatrix(3, n), NewMatrix(3, n)
			for act := SiLU; act <= ReLU; act++ {
				p.Gated(act, got, a, b)
				plain.Gated(act, want, a, b)
				closeTo(t, fmt.Sprintf("activation %d, gated", act), got.values(), want.values(), 1e-6)
				p.GatedBack(act, got, got2, d, a, b)
				plain.GatedBack(act, want, want2, d, a, b)
				closeTo(t, fmt.Sprintf("activation %d, gated, back", act),
					append(got.values(), got2.values()...),
					append(want.values(), want2.values()...), 1e-6)
				p.Act(act, got, a)
				plain.Act(act, want, a)
				closeTo(t, fmt.Sprintf("activation %d", act), got.values(), want.values(), 1e-6)
				p.ActBack(act, got, d, a)
				plain.ActBack(act, want, d, a)
				closeTo(t, fmt.Sprintf("activation %d, back", act), got.values(), want.values(), 1e-6)
			}
			rows, rows2 := make([]Softmax, 3), make([]Softmax, 3)
			for i := range rows {
				rows[i], rows2[i] = NewSoftmax(), NewSoftmax()
			}
			for range 3 { // parts
				l := s.matrix(3, n)
				m := l.clone()
				p.SoftmaxPart(rows, l)
				plain.SoftmaxPart(rows2, m)
				closeTo(t, "e^l", l.values(), m.values(), 1e-6)
				for i, r := range rows {
					closeTo(t, "softmax", []float32{r.Max, float32(r.Sum), r.Fade},
						[]float32{rows2[i].Max, float32(rows2[i].Sum), rows2[i].Fade}, 1e-6)
				}
			}
		}
	})
}

func TestNormsAndRotationsEqualThePlainLoops(t *testing.T) {
	each(t, func(t *testing.T, p, plain *Pool) {
		s := newSource(7)
		for _, n := range []int{3, 7, 16, 17, 40, 576} { // with n = 1 the gradient is only rounding
			x, d, w := s.matrix(3, n), s.matrix(3, n), s.floats(n)
			got, want := s.matrix(3, n), NewMatrix(3, n)
			edge := got.clone()
			p.RMSNorm(got, x, w, 1e-5)
			plain.RMSNorm(want, x, w, 1e-5)
			closeTo(t, "norm", got.values(), want.values(), 1e-6)
			p.RMSNormBack(got, d, x, w, 1e-5)
			plain.RMSNormBack(want, d, x, w, 1e-5)
			closeTo(t, "norm back", got.values(), want.values(), 2e-6)
			gaps(t, "norm back", got, edge)
			b := s.floats(n)
			p.LayerNorm(got, x, w, b, 1e-5)
			plain.LayerNorm(want, x, w, b, 1e-5)
			closeTo(t, "layer norm", got.values(), want.values(), 1e-6)
			p.LayerNormBack(got, d, x, w, 1e-5)
			plain.LayerNormBack(want, d, x, w, 1e-5)
			closeTo(t, "layer norm back", got.values(), want.values(), 5e-6)
			p.Add(got, x, d)
			plain.Add(want, x, d)
			p.AddRow(got, b)
			plain.AddRow(want, b)
			closeTo(t, "sum", got.values(), want.values(), 0)
			gaps(t, "layer norm and sum", got, edge)
		}
		for _, half := range []int{1, 4, 16, 21, 32} {
			dim := 2*half + half%3    // some values of a head may not be rotated
			x := s.matrix(3, 5*dim+3) // five heads and three other values
			want, edge := x.clone(), x.clone()
			for _, back := range []bool{false, true} {
				p.Rotate(x, 5, dim, NewRotary(2*half, 100), []int32{9, 0, 700}, back)
				plain.Rotate(want, 5, dim, NewRotary(2*half, 100), []int32{9, 0, 700}, back)
				closeTo(t, "rotate", x.values(), want.values(), 1e-6)
				gaps(t, "rotate", x, edge)
			}
			closeTo(t, "there and back", x.values(), edge.values(), 1e-6)
		}
	})
}

func TestResultsDoNotDependOnTheNumberOfThreads(t *testing.T) {
	for _, name := range Names(F32) {
		var want []float32
		for threads := 1; threads <= 5; threads++ {
			p, err := New(Options{Threads: threads, Kernels: name})
			if err != nil {
				t.Fatal(err)
			}
			s := newSource(5)
			h := Heads{Q: 6, KV: 2, Dim: 16, Scale: 0.25}
			w, x := s.weight(h.KVCols(), 50, BF16, false), s.matrix(14, 50)
			kv, q := NewMatrix(14, h.KVCols()), s.matrix(14, h.QCols())
			out, lse := NewMatrix(14, h.QCols()), NewMatrix(14, 6)
			dq, dkv, dx := NewMatrix(14, h.QCols()), NewMatrix(14, h.KVCols()), NewMatrix(14, 50)
			p.Product(kv, x, w)
			p.Attend(out, lse, q, kv, h, forest())
			p.AttendBack(dq, dkv, out, lse, q, kv, h, forest())
			p.ProductBack(dx, dkv, w, false)
			p.Close()
			got := slices.Concat(out.Data, dq.Data, dkv.Data, dx.Data)
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Errorf("%s: the results of %d threads differ from those of 1", name, threads)
			}
		}
	}
}

// A depth of 1200 is summed in several slices. 90 outputs are whole and broken panels. Products of 1 to 4
// rows, of 5 to 16 and of more take different kernels.
func TestARowOfAProductDoesNotDependOnTheOthers(t *testing.T) {
	for _, compute := range []DType{F32, BF16} {
		for _, name := range Names(compute) {
			p, err := New(Options{Threads: 2, Kernels: name, Compute: compute})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s := newSource(8)
			for _, depth := range []int{31, 1200} {
				for _, inOut := range []bool{false, true} {
					for format := range F16 + 1 {
						w := s.weight(90, depth, DType(format), inOut)
						x, before := s.matrix(40, depth), s.matrix(40, 90)
						all, added := NewMatrix(40, 90), before.clone()
						p.Product(all, x, w)
						p.AddProduct(added, x, w)
						for _, n := range []int{1, 2, 3, 4, 5, 7, 12, 16, 17, 33} {
							got, sum := NewMatrix(n, 90), before.clone().Top(n)
							p.Product(got, x.Top(n), w)
							p.AddProduct(sum, x.Top(n), w)
							if !slices.Equal(got.values(), all.Top(n).values()) ||
								!slices.Equal(sum.values(), added.Top(n).values()) {
								t.Errorf("%s, %v products, %v weight, inOut %v, depth %d: %d rows differ from 40",
									name, compute, DType(format), inOut, depth, n)
							}
						}
					}
				}
			}
		}
	}
}

func TestTheAttentionOfARowDoesNotDependOnTheOthers(t *testing.T) {
	bias := NewALiBi(6)
	for what, h := range map[string]Heads{
		"grouped": {Q: 6, KV: 2, Dim: 20, Scale: 0.3},
		"single":  {Q: 3, KV: 3, Dim: 64, Scale: 0.3},
		"many":    {Q: 6, KV: 1, Dim: 48, Scale: 0.3, Cap: 2},
		"window":  {Q: 6, KV: 3, Dim: 16, Scale: 0.3, Window: 37, Bias: bias},
		"narrow":  {Q: 4, KV: 2, Dim: 16, Scale: 0.3, Window: 3},
	} {
		each(t, func(t *testing.T, p, _ *Pool) {
			s := newSource(8)
			q, kv := s.matrix(176, h.QCols()), s.matrix(176, h.KVCols())
			lse, all, got := NewMatrix(176, h.Q), NewMatrix(176, h.QCols()), NewMatrix(176, h.QCols())
			p.Attend(all, lse, q, kv, h, longForest())
			for _, n := range []int{1, 2, 3, 5, 9, 50} { // groups of n rows
				var groups []Group
				for _, g := range longForest() {
					for i := 0; i < g.N; i += n {
						own := g.Own + i
						groups = append(groups, Group{
							Row: g.Row + i, N: min(n, g.N-i), Own: own,
							Spans: append(slices.Clone(g.Spans), int32(g.Own), int32(own)),
						})
					}
				}
				p.Attend(got, lse, q, kv, h, groups)
				if !slices.Equal(all.values(), got.values()) {
					t.Errorf("%s, %s: the attention of %d rows at a time differs", p.Kernels(), what, n)
				}
			}
		})
	}
}

func TestNewRefusesAnUnknownKernelSet(t *testing.T) {
	_, err := New(Options{Kernels: "sse9"})
	if err == nil || !strings.Contains(err.Error(), "plain") {
		t.Fatalf("New(sse9) = %v, want an error that names the kernel sets", err)
	}
}

func BenchmarkProduct(b *testing.B) {
	for _, compute := range []DType{F32, BF16} {
		for _, name := range Names(compute) {
			for _, typ := range []DType{F32, BF16} {
				for _, back := range []bool{false, true} {
					b.Run(fmt.Sprintf("%v/%s/weights=%v/back=%v", compute, name, typ, back), func(b *testing.B) {
						p, err := New(Options{Kernels: name, Compute: compute})
						if err != nil {
							b.Fatal(err)
						}
						defer p.Close()
						process.SpareProcessor(p.Threads())
						s := newSource(6)
						w := s.weight(1536, 576, typ, false)
						x, y := View(s.floats(312*576), 312, 576), View(s.floats(312*1536), 312, 1536)
						for b.Loop() {
							if back {
								p.ProductBack(x, y, w, false)
							} else {
								p.Product(y, x, w)
							}
						}
						flops := 2 * 312 * 576 * 1536 * float64(b.N)
						b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
					})
				}
			}
		}
	}
}

// BenchmarkAttention measures one layer with nine query and three key heads, for batches of
// texts that share 16 virtual tokens.
func BenchmarkAttention(b *testing.B) {
	for _, name := range Names(F32)[1:] { // without the plain loop, which would take far too long
		for _, texts := range [][2]int{{16, 20}, {8, 64}, {1, 1024}} {
			for _, back := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%dx%d/back=%v", name, texts[0], texts[1], back), func(b *testing.B) {
					p, err := New(Options{Kernels: name})
					if err != nil {
						b.Fatal(err)
					}
					defer p.Close()
					process.SpareProcessor(p.Threads())
					const prompt = 16
					h, groups := Heads{Q: 9, KV: 3, Dim: 64, Scale: 0.125}, []Group{{N: prompt}}
					flops := 4.0 // for each pair of a row and a key, and each column
					for i := range texts[0] {
						row := prompt + i*texts[1]
						g := Group{Row: row, N: texts[1], Own: row, Spans: []int32{0, prompt}}
						groups = append(groups, g)
					}
					s, rows, pairs := newSource(8), prompt+texts[0]*texts[1], 0
					q, kv := s.matrix(rows, h.QCols()), s.matrix(rows, h.KVCols())
					out, lse := NewMatrix(rows, h.QCols()), NewMatrix(rows, h.Q)
					dq, dkv := NewMatrix(rows, h.QCols()), NewMatrix(rows, h.KVCols())
					for _, g := range groups {
						pairs += g.Pairs()
					}
					p.Attend(out, lse, q, kv, h, groups)
					for b.Loop() {
						if back {
							p.AttendBack(dq, dkv, q, lse, q, kv, h, groups)
						} else {
							p.Attend(out, lse, q, kv, h, groups)
						}
					}
					if back {
						flops = 10
					}
					flops *= float64(pairs) * float64(h.QCols()) * float64(b.N)
					b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

// BenchmarkFewRows measures the product of a decoding step, with weights that fit into no cache.
func BenchmarkFewRows(b *testing.B) {
	for _, typ := range []DType{F32, BF16} {
		for _, m := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("weights=%v/rows=%d", typ, m), func(b *testing.B) {
				p, err := New(Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				process.SpareProcessor(p.Threads())
				const out, in = 160000, 576
				data := make([]byte, typ.Bytes(out*in))
				w := Weight{Data: data, DType: typ, Out: out, In: in, Stride: in}
				x, y := NewMatrix(m, in), NewMatrix(m, out)
				for i := range w.Data {
					w.Data[i] = 63 // 0.75
				}
				for b.Loop() {
					p.Product(y, x, w)
				}
				bytes := float64(len(w.Data)) * float64(b.N)
				b.ReportMetric(bytes/b.Elapsed().Seconds()/1e9, "GB/s")
			})
		}
	}
}

func TestEachCallsEveryIndexOnceWhetherThreadsSleepOrNot(t *testing.T) {
	for threads := 1; threads <= 4; threads++ {
		p, err := New(Options{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 3000 {
			n := round % 9
			did := make([]atomic.Int32, n)
			p.Each(n, func(_, i int) { did[i].Add(1) })
			for i := range did {
				if did[i].Load() != 1 {
					t.Fatalf("%d threads: %d of %d was called %d times", threads, i, n, did[i].Load())
				}
			}
			if round%500 == 0 {
				time.Sleep(2 * time.Millisecond) // the threads fall asleep
			}
		}
		p.Close()
	}
}

// By hand: a set packs its own number of rows together, in four bytes a value, or for AMX in three
// parts of two bytes and 32 columns at a time.
func TestPackedIsTheSizeComputedByHand(t *testing.T) {
	for _, s := range sets(F32) {
		rows, cols, bytes := s.blockRows, 100, 4
		switch s.name {
		case "plain":
			rows, bytes = 0, 0
		case "amx":
			rows, cols, bytes = 32, 128, 6
		}
		p := &Pool{set: s}
		for _, m := range []int{1, 32, 33} {
			want := 0
			if rows > 0 {
				want = (m + rows - 1) / rows * rows * cols * bytes
			}
			if got := p.Packed(m, 100); got != int64(want) {
				t.Errorf("%s: Packed(%d, 100) = %d, want %d", s.name, m, got, want)
			}
		}
	}
}

func TestSharesCoverEveryColumnOnceAndGetSmaller(t *testing.T) {
	for _, threads := range []int{1, 2, 7} {
		for _, cols := range []int{1, 16, 33, 960, 3072} {
			p := &Pool{set: set{panelCols: 16}, scratch: make([][]float32, threads)}
			p.share([]Matrix{{Cols: cols}, {Cols: 100}}, 8, true)
			next, last := share{}, 0
			for _, s := range p.shares {
				if s.of != next.of {
					if next.n1 != cols {
						t.Fatalf("%d threads: shares of the first output end at column %d, want %d", threads,
							next.n1, cols)
					}
					next = share{of: s.of}
				}
				if s.n0 != next.n1 || s.n1 <= s.n0 || s.n1-s.n0 > 8*16 {
					t.Fatalf("%d threads, %d columns: a share of columns %d to %d after one that ends at %d",
						threads, cols, s.n0, s.n1, next.n1)
				}
				next, last = s, s.n1-s.n0
			}
			if next != (share{1, next.n0, 100}) || last > 16 {
				t.Errorf("%d threads, %d columns: the last share is %+v", threads, cols, next)
			}
		}
	}
}
