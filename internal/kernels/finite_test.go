package kernels

import (
	"math"
	"testing"
)

func TestNotFiniteFindsTheFirstNaNOrInfinity(t *testing.T) {
	pool, err := New(Options{Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const n = 700_001
	for d, special := range map[DType][]uint32{
		F32:  {math.Float32bits(float32(math.NaN())), 0x7f800000, 0xff800000},
		BF16: {0x7fc0, 0x7f80, 0xff80},
		F16:  {0x7e00, 0x7c00, 0xfc00},
	} {
		put := func(data []byte, i int, bits uint32) {
			for b := range d.Bytes(1) {
				data[d.Bytes(i)+b] = byte(bits >> (8 * b))
			}
		}
		whole := FloatBytes(make([]float32, (d.Bytes(n)+3)/4))[:d.Bytes(n)]
		largest := map[DType]uint32{F32: 0x7f7fffff, BF16: 0x7f7f, F16: 0x7bff}
		put(whole, 11, largest[d])
		if got := pool.NotFinite(whole, d); got != -1 {
			t.Errorf("%v: NotFinite = %d, want -1", d, got)
		}
		put(whole, n-1, special[0])
		for _, bits := range special {
			for _, at := range []int{n - 1, 300_003, 262_144, 262_143, 7, 0} {
				put(whole, at, bits)
				if got := pool.NotFinite(whole, d); got != at {
					t.Errorf("%v %#x: NotFinite = %d, want %d", d, bits, got, at)
				}
			}
			for _, at := range []int{300_003, 262_144, 262_143, 7, 0} {
				put(whole, at, 0)
			}
		}
	}
}
