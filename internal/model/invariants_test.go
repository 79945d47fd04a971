package model_test

import (
	"crypto/sha256"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/ops"
	"ptune/internal/process"
)

// sameNumbers is the tolerance between two ways to compute the same: sums in another order.
const sameNumbers = 2e-5

func load(t *testing.T, name string, threads int) *model.Model {
	t.Helper()
	pool, err := kernels.New(kernels.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	m, err := model.Load(filepath.Join(goldenDir, name), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

var bases = []string{"llama-gqa-tied-f32", "gpt2-f32", "llama-one-layer-f32"}

// prompt returns a soft prompt of that many rows.
func prompt(m *model.Model, rows int) []float32 {
	p := make([]float32, rows*m.Hidden)
	for i := range p {
		p[i] = float32(math.Sin(float64(7*i))) / 3
	}
	return p
}

// ragged returns examples of different lengths. Some share a prefix.
func ragged() []batch.Example {
	prefix := []int32{1, 20, 21, 22, 23, 24}
	return []batch.Example{
		{IDs: append(slices.Clone(prefix), 30, 31, 2), From: 7},
		{IDs: append(slices.Clone(prefix), 40, 2), From: 6},
		{IDs: []int32{1, 50, 51, 52, 53, 54, 55, 56, 2}, From: 1}, {IDs: []int32{60, 61}, From: 0},
		{IDs: append(slices.Clone(prefix), 30, 32, 33, 34, 2), From: 8},
	}
}

func lossGrad(t *testing.T, m *model.Model, p []float32, f *batch.Forest) (float64, []float32) {
	t.Helper()
	grad := make([]float32, len(p))
	nll, err := m.LossGrad(p, f, grad)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, v := range nll {
		sum += float64(v)
	}
	return sum, grad
}

// meanLossGrad returns the mean loss of the forest's targets, as transformers does, and its gradient.
func meanLossGrad(t *testing.T, m *model.Model, p []float32, f *batch.Forest) (float64, []float32) {
	t.Helper()
	sum, grad := lossGrad(t, m, p, f)
	n := len(f.Targets)
	for i := range grad {
		grad[i] /= float32(n)
	}
	return sum / float64(n), grad
}

func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	within(t, what, got, want, sameNumbers*max(1, largest(want)))
}

// same fails unless got and want are equal to the bit.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want the same bits as %v", what, got, want)
	}
}

func TestARowAloneEqualsTheRowInAnyBatch(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		p := prompt(m, 4)
		all, err := m.NLL(p, batch.Pack([]int{4}, ragged()))
		if err != nil {
			t.Fatal(err)
		}
		together, alone := slices.Clone(all), []float32(nil)
		for _, e := range ragged() {
			nll, err := m.NLL(p, batch.Pack([]int{4}, []batch.Example{e}))
			if err != nil {
				t.Fatal(err)
			}
			alone = append(alone, nll...)
		}
		same(t, name, together, alone)
	}
}

func TestASharedPromptEqualsARepeatedOne(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		p := prompt(m, 4)
		shared := ragged()
		want, wantGrad := lossGrad(t, m, p, batch.Pack([]int{4}, shared))
		var rows []int
		var repeated []float32
		apart := ragged()
		for i := range apart { // each row after its own copy of the prompt, as in PEFT
			apart[i].Prompt, rows, repeated = i, append(rows, 4), append(repeated, p...)
		}
		got, grads := lossGrad(t, m, repeated, batch.Pack(rows, apart))
		sum := make([]float32, len(p))
		for i, g := range grads {
			sum[i%len(p)] += g
		}
		near(t, name+" loss", []float32{float32(got)}, []float32{float32(want)})
		near(t, name+" gradient", sum, wantGrad)
	}
}

func TestMicroBatchesEqualOneBatch(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		p := prompt(m, 4)
		want, wantGrad := lossGrad(t, m, p, batch.Pack([]int{4}, ragged()))
		var got float64
		grad := make([]float32, len(p))
		for _, part := range [][]batch.Example{ragged()[:1], ragged()[1:4], ragged()[4:]} {
			nll, g := lossGrad(t, m, p, batch.Pack([]int{4}, part))
			for i, v := range g {
				grad[i] += v
			}
			got += nll
		}
		near(t, name+" loss", []float32{float32(got)}, []float32{float32(want)})
		near(t, name+" gradient", grad, wantGrad)
	}
}

// The cases are parts of any size, activations stored or recomputed, one soft prompt or several, and
// shared prefixes with and without targets.
func TestASplitBatchEqualsTheWholeBatch(t *testing.T) {
	eachGolden(t, func(t *testing.T, m *model.Model, _ *golden) {
		p := prompt(m, 6)
		two := ragged()
		for i := range two {
			two[i].Prompt = i % 2
		}
		for _, f := range []*batch.Forest{
			batch.Pack([]int{6}, ragged()),
			batch.Pack([]int{2, 4}, two),
			batch.Pack([]int{6}, []batch.Example{
				{IDs: []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, From: 8},
				{IDs: []int32{1, 2, 3, 4, 5, 6, 7, 11, 12}, From: 8},
			}),
		} {
			for _, m.Recompute = range []model.Recompute{{}, {Layers: 2}, {All: true}} {
				m.PartRows = 0
				want, wantGrad := lossGrad(t, m, p, f)
				wantNLL, err := m.NLL(p, f)
				if err != nil {
					t.Fatal(err)
				}
				each := slices.Clone(wantNLL)
				for _, m.PartRows = range []int{1, 4, 9} {
					nll, err := m.LossGrad(p, f, make([]float32, len(p)))
					if err != nil {
						t.Fatal(err)
					}
					same(t, "losses", nll, each)
					got, grad := lossGrad(t, m, p, f)
					near(t, "loss", []float32{float32(got)}, []float32{float32(want)})
					near(t, "gradient", grad, wantGrad)
				}
			}
		}
	})
}

func TestASplitBatchTakesLessMemoryForTheSameWork(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		f := batch.Pack([]int{4}, append(texts(12, 20, m.Vocab), ragged()...))
		whole, err := m.Plan(f)
		if err != nil {
			t.Fatal(err)
		}
		m.PartRows = 70
		parts, err := m.Plan(f)
		if err != nil {
			t.Fatal(err)
		}
		sameWork := math.Abs(parts.FLOPs/whole.FLOPs-1) <= 1e-12
		lessMemory := parts.Bytes <= whole.Bytes*2/3 && parts.Rows <= 80
		if !sameWork || !lessMemory || whole.Rows != f.Rows() {
			t.Errorf("%s: in parts %+v, whole %+v", name, parts, whole)
		}
		if again, err := m.Plan(f); err != nil || again != parts {
			t.Errorf("%s: a second plan is %+v, %v, the first %+v", name, again, err, parts)
		}
	}
}

func TestThreadsDoNotChangeABit(t *testing.T) {
	for _, name := range bases {
		var want []float32
		for _, threads := range []int{1, 2, 5} {
			m := load(t, name, threads)
			nll, grad := lossGrad(t, m, prompt(m, 4), batch.Pack([]int{4}, ragged()))
			got := append(grad, float32(nll))
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Errorf("%s: the bits differ between %d threads and one", name, threads)
			}
		}
	}
}

func TestRunsInBetweenDoNotChangeARun(t *testing.T) {
	m := load(t, bases[0], 2)
	p := prompt(m, 4)
	small, large := batch.Pack([]int{4}, ragged()[:2]), batch.Pack([]int{4}, ragged())
	want, wantGrad := lossGrad(t, m, p, small)
	for range 3 {
		lossGrad(t, m, p, large)
		greedy(t, m, p, []int{4}, []batch.Text{{IDs: []int32{1, 2, 3}}}, 5)
		got, grad := lossGrad(t, m, p, small)
		if got != want || !slices.Equal(grad, wantGrad) {
			t.Fatal("a run's result depends on what ran before it")
		}
	}
}

func TestKVCacheEqualsRecomputing(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		p := append(prompt(m, 3), prompt(m, 2)...) // two prompts at once
		texts := []batch.Text{
			{Prompt: 0, IDs: []int32{1, 20, 21, 22, 23}},
			{Prompt: 1, IDs: []int32{1, 20, 21, 22, 24, 25}},
			{Prompt: 0, IDs: []int32{1, 20, 21, 22, 23, 9}},
			{Prompt: 1},
		}
		const n = 12
		for i, ids := range greedy(t, m, p, []int{3, 2}, texts, n) {
			for k := range n { // the likeliest token again, from the whole text
				whole := append(slices.Clone(texts[i].IDs), ids[:k]...)
				logits, err := m.Logits(p, batch.Pack([]int{3, 2},
					[]batch.Example{{Prompt: texts[i].Prompt, IDs: append(whole, 0), From: len(whole)}}))
				if err != nil {
					t.Fatal(err)
				}
				row := logits.Row(0)
				if want := int32(slices.Index(row, slices.Max(row))); ids[k] != want {
					t.Fatalf("%s: text %d: token %d is %d from the cache, %d recomputed", name, i,
						k, ids[k], want)
				}
			}
		}
	}
}

func TestThePromptChangesTheLogits(t *testing.T) {
	m := load(t, bases[0], 1)
	with, err := m.Logits(prompt(m, 4), batch.Pack([]int{4}, ragged()[:1]))
	if err != nil {
		t.Fatal(err)
	}
	a := slices.Clone(with.Data)
	without, err := m.Logits(nil, batch.Pack(nil, ragged()[:1]))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(a, without.Data) {
		t.Error("logits are the same with and without the prompt")
	}
}

func TestTheBaseFileIsUnchanged(t *testing.T) {
	path := filepath.Join(goldenDir, bases[0], "model.safetensors")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := load(t, bases[0], 2)
	lossGrad(t, m, prompt(m, 4), batch.Pack([]int{4}, ragged()))
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(before) != sha256.Sum256(after) {
		t.Error("the model file has changed")
	}
}

func TestInvalidTextsAreErrors(t *testing.T) {
	m := load(t, bases[1], 1)
	long := make([]int32, 70)
	for name, c := range map[string]struct {
		e    batch.Example
		want string
	}{
		"too long": {batch.Example{IDs: long, From: 69}, "the model has 64 positions"},
		"unknown token": {batch.Example{IDs: []int32{1, 99, 2}, From: 1},
			"token id 99 is not in the model's vocabulary of 99"},
		"unknown target":   {batch.Example{IDs: []int32{1, -5}, From: 1}, "token id -5"},
		"nothing to learn": {batch.Example{IDs: []int32{1, 2}, From: 2}, "no token to predict"},
	} {
		_, err := m.NLL(prompt(m, 4), batch.Pack([]int{4}, []batch.Example{c.e}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c.want)
		}
	}
	if _, err := m.NLL(prompt(m, 3), batch.Pack([]int{4}, ragged())); err == nil {
		t.Error("a prompt of three rows was accepted as one of four")
	}
}

// Beyond its original length LongRoPE would change the angles of the whole batch.
func TestATextLongerThanLongRoPEsOriginalLengthIsRefused(t *testing.T) {
	m := load(t, "phi3-longrope", 1)
	ids := slices.Repeat([]int32{5}, 58) // the last one has no row, and so no position
	nll := func(ids []int32) error {
		_, err := m.NLL(prompt(m, 4), batch.Pack([]int{4}, []batch.Example{{IDs: ids, From: 1}}))
		return err
	}
	if err := nll(ids[:57]); err != nil {
		t.Errorf("60 positions: %v", err)
	}
	if err := nll(ids); err == nil || !strings.Contains(err.Error(), "the model has 60 positions") {
		t.Errorf("61 positions: %v, want an error with 60", err)
	}
}

func TestRecomputingGivesTheSameBitsInLessMemory(t *testing.T) {
	for _, name := range bases {
		m := load(t, name, 2)
		p, f := prompt(m, 3), batch.Pack([]int{3}, ragged())
		nll, grad := lossGrad(t, m, p, f)
		kept, err := m.Plan(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m.Recompute = range []model.Recompute{{Layers: 1}, {Layers: 2}, {All: true}} {
			nll2, grad2 := lossGrad(t, m, p, f)
			if nll != nll2 || !slices.Equal(grad, grad2) {
				t.Errorf("%s: loss %v, with %+v %v; gradients equal: %v",
					name, nll, m.Recompute, nll2, slices.Equal(grad, grad2))
			}
			again, err := m.Plan(f)
			if err != nil {
				t.Fatal(err)
			}
			if name != "llama-one-layer-f32" &&
				(again.Bytes >= kept.Bytes || again.FLOPs <= kept.FLOPs) {
				t.Errorf("%s: the plan before is %+v, with %+v %+v", name, kept, m.Recompute, again)
			}
			kept = again
		}
	}
}

// The largest batch recomputes two layers, larger ones more, smaller ones fewer within the same
// memory.
func TestSmallerBatchesUseTheMemoryOfTheLargest(t *testing.T) {
	m := load(t, "llama-gqa-tied-f32", 2)
	const largest = 20
	batchOf := func(n int) *batch.Forest { return batch.Pack([]int{4}, texts(n, 20, m.Vocab)) }
	plan := func(n int, r model.Recompute) ops.Plan {
		m.Recompute = r
		p, err := m.Plan(batchOf(n))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	all, some := plan(largest, model.Recompute{}), plan(largest, model.Recompute{Layers: 2})
	r := model.Recompute{Layers: 2, Rows: all.Rows, Saved: 1 - float64(some.Bytes)/float64(all.Bytes)}
	layers := func(n int) int {
		plan(n, r)
		return m.RecomputedLayers(batchOf(n).Rows())
	}
	if got := plan(largest, r); got != some {
		t.Errorf("the largest batch takes %+v, want %+v", got, some)
	}
	before := 0
	for n := 1; n < 2*largest; n++ {
		now := layers(n)
		if now < before {
			t.Errorf("%d texts recompute %d layers, one text less %d", n, now, before)
		}
		if got := plan(n, r); n < largest && got.Bytes > some.Bytes*101/100 {
			t.Errorf("%d texts take %d bytes, the largest batch %d", n, got.Bytes, some.Bytes)
		}
		if want := plan(n, model.Recompute{Layers: now}); plan(n, r) != want {
			t.Errorf("%d texts take %+v, with %d layers %+v", n, plan(n, r), now, want)
		}
		before = now
	}
	half, same, twice := layers(largest/2), layers(largest), layers(2*largest)
	if half != 0 || same != 2 || twice != 3 {
		t.Errorf("half the largest batch recomputes %d layers, the largest %d, twice the largest %d; "+
			"want 0, 2 and 3", half, same, twice)
	}
}

// The FLOPs are counted by hand for a Llama. Recomputed are gate and up of the first layers, or gate,
// up, queries, keys and values of every layer.
func TestTheInputsOfMLPAndAttentionAreRecomputed(t *testing.T) {
	m := load(t, "llama-gqa-tied-f32", 1)
	const d, inner, q, kv, layers = 48, 56, 48, 16, 3 // config.json
	f := batch.Pack([]int{4}, []batch.Example{{IDs: make([]int32, 9), From: 7}})
	const rows, targets = 4 + 9 - 1, 2
	kept, err := m.Plan(f)
	if err != nil {
		t.Fatal(err)
	}
	var first, all float64 // of two layers
	for layer := range layers {
		asking := float64(rows)
		if layer == layers-1 {
			asking = targets
		}
		mlp := 2 * d * 2 * inner * asking
		if layer < 2 {
			first += mlp
		}
		all += mlp + 2*d*(asking*q+rows*2*kv)
	}
	for r, want := range map[model.Recompute]float64{{All: true}: all, {Layers: 2}: first} {
		m.Recompute = r
		again, err := m.Plan(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := again.FLOPs - kept.FLOPs; got != want {
			t.Errorf("%+v: %g FLOPs are recomputed, counted by hand %g", r, got, want)
		}
	}
}

// The expected FLOPs are counted by hand. A step computes nothing that the gradient does not need.
func TestAPlanCountsTheWorkOfAStep(t *testing.T) {
	m := load(t, "llama-gqa-tied-f32", 1)
	c := struct{ vocab, d, inner, q, kv, layers float64 }{99, 48, 56, 48, 16, 3} // config.json
	const prompts, text, targets = 4, 9, 2
	ids := make([]int32, text)
	for i := range ids {
		ids[i] = int32(i + 3)
	}
	f := batch.Pack([]int{prompts}, []batch.Example{{IDs: ids, From: text - targets}})
	rows := float64(prompts + text - 1)
	pairs := rows * (rows + 1) / 2
	seen := (rows - 1) + rows // by the two target rows, the last two
	linear := 2 * (c.d*(c.q+2*c.kv) + c.q*c.d + 3*c.d*c.inner)
	kv := 2 * c.d * 2 * c.kv
	layer := rows*linear*2 + 14*pairs*c.q
	last := rows*kv*2 + targets*(linear-kv)*2 + 14*seen*c.q
	first := layer - (rows-prompts)*2*c.d*(c.q+2*c.kv) // its backward pass ends at the soft prompt
	want := first + layer*(c.layers-2) + last + 2*targets*2*c.vocab*c.d
	got, err := m.Plan(f)
	if err != nil {
		t.Fatal(err)
	}
	if got.FLOPs != want {
		t.Errorf("the plan has %g FLOPs, counted by hand %g", got.FLOPs, want)
	}
}

func TestAStepAllocatesNoBuffersAfterTheFirst(t *testing.T) {
	for i, name := range append(bases, bases...) {
		m := load(t, name, 2)
		p, f := prompt(m, 3), batch.Pack([]int{3}, ragged())
		if i >= len(bases) {
			m.PartRows, name = 8, name+" split"
		}
		_, parts, _ := f.Split(m.PartRows)
		grad := make([]float32, len(p))
		step := func() {
			if _, err := m.LossGrad(p, f, grad); err != nil {
				t.Fatal(err)
			}
		}
		step()
		step()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const steps = 20
		for range steps {
			step()
		}
		runtime.ReadMemStats(&after)
		// gorgonia allocates a little for each operator it runs. A buffer would be far more.
		operators := uint64(2 * 13 * 3 * (1 + len(parts)))
		if each := (after.TotalAlloc - before.TotalAlloc) / steps; each > 1024*operators {
			t.Errorf("%s: a step allocates %d bytes", name, each)
		} else {
			t.Logf("%s: a step allocates %d bytes", name, each)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	pool, err := kernels.New(kernels.Options{Threads: 0})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	process.SpareProcessor(pool.Threads())
	m, err := model.Load("../demo/base", pool)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	var examples []batch.Example
	for i := range 16 {
		e := batch.Example{From: 24}
		for k := range 26 {
			e.IDs = append(e.IDs, int32(1+(i*31+k*17)%2000))
		}
		examples = append(examples, e)
	}
	f, p := batch.Pack([]int{16}, examples), prompt(m, 16)
	grad := make([]float32, len(p))
	for name, part := range map[string]int{"Whole": 0, "InParts": 64} {
		b.Run(name, func(b *testing.B) {
			m.PartRows = part
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.LossGrad(p, f, grad); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(f.Rows()*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func TestAPlanCountsStoredActivations(t *testing.T) {
	m := load(t, bases[0], 2)
	bytes := func(texts []batch.Example) int64 {
		p, err := m.Plan(batch.Pack([]int{3}, texts))
		if err != nil {
			t.Fatal(err)
		}
		return p.Bytes
	}
	one := texts(4, 20, m.Vocab)
	few, many := bytes(one), bytes(texts(16, 20, m.Vocab))
	rows := int64(batch.Pack([]int{3}, one).Rows())
	// Each block stores its input, the input of its MLP, and more.
	if least := 4 * rows * int64(m.Hidden) * int64(2*m.Layers()); few < least {
		t.Errorf("%d rows take %d bytes, want at least %d", rows, few, least)
	}
	if many < 3*few || many > 5*few {
		t.Errorf("four times the rows take %d bytes, the rows once %d", many, few)
	}
	if again := bytes(one); again != few {
		t.Errorf("a second plan has %d bytes, the first %d", again, few)
	}
}
