package model_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/process"
)

// kinds maps a part of an operator's name to its kind. The first match counts.
var kinds = []struct{ in, kind string }{
	{".attend", "attention"}, {"loss", "head"}, {".weight", "products"}, {".qkv", "products"},
	{"act", "activations"}, {"rope", "positions"}, {"embed", "positions"}, {"", "norms"},
}

// BenchmarkOperators reports for each kind of operator its part of a step: milliseconds, GFLOP
// of products and attention, and MB of values read and written. It also reports the CPU's peak:
// the median of measurements between the steps, because on a shared machine the peak changes.
// The step has 16 texts of 20 tokens after 16 virtual tokens. PTUNE_BENCH_MODEL is the model
// directory.
func BenchmarkOperators(b *testing.B) {
	pool, err := kernels.New(kernels.Options{Kernels: os.Getenv("PTUNE_KERNELS")})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	process.SpareProcessor(pool.Threads())
	dir := os.Getenv("PTUNE_BENCH_MODEL")
	if dir == "" {
		dir = "../demo/base"
	}
	m, err := model.Load(dir, pool)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	took, flops, bytes := map[string]time.Duration{}, map[string]float64{}, map[string]float64{}
	m.Observe = func(operator string, work, values float64, t time.Duration) {
		for _, k := range kinds {
			if strings.Contains(operator, k.in) {
				took[k.kind] += t
				flops[k.kind] += work
				bytes[k.kind] += values
				return
			}
		}
	}
	f, p := batch.Pack([]int{16}, texts(16, 20, m.Vocab)), prompt(m, 16)
	grad := make([]float32, len(p))
	step := func() {
		if _, err := m.LossGrad(p, f, grad); err != nil {
			b.Fatal(err)
		}
	}
	step() // builds the graph and takes its memory
	clear(took)
	clear(flops)
	clear(bytes)
	var peaks []float64
	for b.Loop() {
		step()
		b.StopTimer()
		peaks = append(peaks, pool.Peak())
		b.StartTimer()
	}
	slices.Sort(peaks)
	n := float64(b.N)
	for kind, t := range took {
		b.ReportMetric(t.Seconds()*1e3/n, kind+"-ms")
		b.ReportMetric(flops[kind]/n/1e9, kind+"-GFLOP")
		b.ReportMetric(bytes[kind]/n/1e6, kind+"-MB")
	}
	b.ReportMetric(peaks[len(peaks)/2]/1e9, "peak-GFLOP/s")
}

// texts returns n examples of that many tokens, of which the last two are targets. No two share
// a prefix.
func texts(n, tokens, vocab int) []batch.Example {
	var list []batch.Example
	for i := range n {
		e := batch.Example{From: tokens - 2}
		for k := range tokens {
			e.IDs = append(e.IDs, int32(1+(i*131+k*k*17+k*29)%(vocab-1)))
		}
		list = append(list, e)
	}
	return list
}
