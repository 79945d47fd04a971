package kernels

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"testing"
)

// goldenQuants are hashes of the values of 10,000 blocks of each format, as the gguf package computes
// them: the output of testdata/quants.py.
var goldenQuants = map[DType]string{
	Q8_0:   "73f500212e445b83af6f16561023bb5a",
	Q4_0:   "9f8e210cf7da083299e3f6f9cd8f30f8",
	Q4_1:   "8c0ab324b462460eb736470f39d0bfe3",
	Q5_0:   "7c4888d0e632eff720422aa4eec4d1ae",
	Q5_1:   "bf0a80ee6c074b4963fd55662b826565",
	Q2_K:   "a5307961d7a909ed534c74b4d210e6b0",
	Q3_K:   "29c1de1617811f1371261994b79ced2a",
	Q4_K:   "e94c1ac76de3e705b3f7669c76547d81",
	Q5_K:   "c3028130caea38606471d44b6964cb44",
	Q6_K:   "6389a819307a2e166edd4ef7ee51a705",
	IQ4_NL: "359579e3427e84ad49765062b13e21ef",
	IQ4_XS: "c44fe7cc125ca3313074cd04b040cac1",
}

// blocks returns n blocks of a format: the bytes of a linear congruential generator, without the scales
// that are no numbers.
func blocks(t DType, n int) []byte {
	f, state := formats[t], uint64(1)
	data := make([]byte, n*f.bytes)
	for i := range data {
		state = state*6364136223846793005 + 1442695040888963407
		data[i] = byte(state >> 56)
	}
	for at := 0; at < len(data); at += f.bytes {
		for _, s := range scalePlaces[t] {
			data[at+s] &= 0xbf
		}
	}
	return data
}

// scalePlaces are the places in a block of the upper bytes of F16 scales.
var scalePlaces = map[DType][]int{
	Q8_0: {1}, Q4_0: {1}, Q4_1: {1, 3}, Q5_0: {1}, Q5_1: {1, 3}, Q2_K: {81, 83}, Q3_K: {109},
	Q4_K: {1, 3}, Q5_K: {1, 3}, Q6_K: {209}, IQ4_NL: {1}, IQ4_XS: {1},
}

func TestQuantisedBlocksEqualThoseOfTheGGUFPackage(t *testing.T) {
	const n = 10_000
	for d := range formats {
		d := DType(d)
		if !d.Quantised() {
			continue
		}
		data, values := blocks(d, n), n*d.BlockValues()
		out := make([]float32, values)
		for _, s := range sets(F32) {
			clear(out)
			s.floats(out, data, d, 0, 0, 1, values)
			if got := fmt.Sprintf("%x", sha256.Sum256(FloatBytes(out)))[:32]; got != goldenQuants[d] {
				t.Errorf("%s: 10,000 blocks of %v have the hash %s, want %s", s.name, d, got, goldenQuants[d])
			}
		}
		for _, i := range []int{0, 17, values/2 + 5, values - 1} {
			if got := Float(data, d, i); got != out[i] {
				t.Errorf("%v: value %d is %g, want %g", d, i, got, out[i])
			}
		}
		row := make([]float32, d.BlockValues())
		ToFloats(row, data[d.BlockBytes():], d)
		if want := out[len(row) : 2*len(row)]; !slices.Equal(row, want) {
			t.Errorf("%v: the second block as floats is %g, want %g", d, row[:4], want[:4])
		}
	}
}

// The products of a quantised weight are those of the same weight in F32, to the bit.
func TestProductsOfQuantisedWeightsEqualThoseOfTheirValues(t *testing.T) {
	each(t, func(t *testing.T, p, _ *Pool) {
		s := newSource(11)
		for d := range goldenQuants {
			for _, m := range []int{1, 3, 8, 40} {
				out, in := 70, 512
				w := Weight{Name: d.String(), DType: d, Out: out, In: in, Stride: in,
					Data: blocks(d, out*in/d.BlockValues())}
				f := w
				values := make([]float32, out*in)
				ToFloats(values, w.Data, d)
				f.DType, f.Data = F32, FloatBytes(values)
				x, got, want := s.matrix(m, in), s.matrix(m, out), NewMatrix(m, out)
				p.Product(got, x, w)
				p.Product(want, x, f)
				what := fmt.Sprintf("%v, %d rows", d, m)
				same(t, what, got, want)
				part := NewMatrix(m, 20)
				p.Product(part, x, w.OutRange(33, 20))
				closeTo(t, what+", outputs 33 to 52", part.values(), want.Columns(33, 20).values(), 1e-6)
				g, dx, wantDX := s.matrix(m, out), s.matrix(m, in), NewMatrix(m, in)
				p.ProductBack(dx, g, w, false)
				p.ProductBack(wantDX, g, f, false)
				same(t, what+" back", dx, wantDX)
			}
		}
	})
}

// same fails unless two matrices are equal to the bit.
func same(t *testing.T, what string, got, want Matrix) {
	t.Helper()
	if a, b := got.values(), want.values(); !slices.Equal(a, b) {
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%s: value %d is %g, want %g", what, i, a[i], b[i])
			}
		}
	}
	if !guarded(got.Data) {
		t.Fatalf("%s: a guard value was overwritten", what)
	}
}

func TestAPanelOfAQuantisedWeightIsAsLargeAsTheCache(t *testing.T) {
	p, err := New(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const out, in = 4096, 256
	w := Weight{DType: Q4_K, Out: out, In: in, Stride: in, Data: blocks(Q4_K, out)}
	p.Product(NewMatrix(40, out), NewMatrix(40, in), w)
	p.ProductBack(NewMatrix(40, in), NewMatrix(40, out), w, false)
	for _, f := range p.floats {
		if len(f) > panelFloats*5/4 {
			t.Errorf("a thread has %d values of a weight of %d in f32, want at most %d", len(f), out*in,
				panelFloats*5/4)
		}
	}
}

func TestRowsStoredInPairsGiveOutputsInOrder(t *testing.T) {
	each(t, func(t *testing.T, p, _ *Pool) {
		s := newSource(12)
		const heads, dim, in = 3, 8, 50
		w := s.weight(heads*dim, in, F32, false)
		stored := w
		stored.Pairs, stored.Data = dim, make([]byte, len(w.Data))
		for i := range heads * dim { // llama.cpp: reshape (heads, 2, dim/2), swap the last two
			head, j := i/dim*dim, i%dim
			at := head + j%(dim/2)*2 + j/(dim/2)
			if got := stored.StoredRow(i); got != at {
				t.Errorf("output %d is made by row %d, want %d", i, got, at)
			}
			copy(stored.Data[at*4*in:(at+1)*4*in], w.Data[i*4*in:])
		}
		for _, m := range []int{1, 5, 40} {
			x, got, want := s.matrix(m, in), s.matrix(m, heads*dim), NewMatrix(m, heads*dim)
			p.Products([]Matrix{got}, x, []Weight{stored})
			p.Products([]Matrix{want}, x, []Weight{w})
			same(t, "outputs", got, want)
			d, dx, wantDX := s.matrix(m, heads*dim), NewMatrix(m, in), NewMatrix(m, in)
			before := d.clone()
			p.ProductBack(dx, d, stored, false)
			p.ProductBack(wantDX, d, w, false)
			closeTo(t, "gradient", dx.values(), wantDX.values(), 1e-6)
			if !slices.Equal(d.Data, before.Data) {
				t.Fatal("the gradient of the outputs was changed")
			}
		}
	})
}

func TestNotFiniteFindsScalesThatAreNoNumbers(t *testing.T) {
	p, err := New(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for d, places := range scalePlaces {
		data := blocks(d, 20)
		if got := p.NotFinite(data, d); got != -1 {
			t.Errorf("%v: NotFinite = %d, want -1", d, got)
		}
		for _, at := range places {
			bad := slices.Clone(data)
			bad[7*d.BlockBytes()+at] = 0x7c
			if got, want := p.NotFinite(bad, d), 7*d.BlockValues(); got != want {
				t.Errorf("%v, byte %d: NotFinite = %d, want %d", d, at, got, want)
			}
			if v := Float(bad, d, 7*d.BlockValues()); !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) {
				t.Errorf("%v: the value is %g, want NaN or infinity", d, v)
			}
		}
	}
}
