package ops_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// The backward pass of every operator is compared with finite differences of its forward pass,
// between an embedding and a loss. The loss is f32: with steps of 1e-2, its rounding and the
// third derivative leave an error of about 1e-3 of the gradient.
const (
	step      = 1e-2
	tolerance = 4e-3 // of the largest derivative
)

const (
	width   = 12 // D
	prompts = 3  // P
	rows    = 9  // T: the prompt, a shared prefix of 2, two leaves of 2
	vocab   = 17 // V
)

var random = func(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 2)) }

func weight(r *rand.Rand, name string, out, in int, inOut bool) kernels.Weight {
	w := kernels.Weight{Name: name, Out: out, In: in, Stride: in, InOut: inOut}
	if inOut {
		w.Stride = out
	}
	for range out * in {
		w.Data = binary.LittleEndian.AppendUint32(w.Data, math.Float32bits(float32(0.5*r.NormFloat64())))
	}
	return w
}

func vector(r *rand.Rand, n int, mean float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(mean + 0.3*r.NormFloat64())
	}
	return v
}

// layout returns the forest of the constants above. With all, every row is a target row, else
// some are, one of them twice.
func layout(all bool) *ops.Layout {
	l := &ops.Layout{
		Prompts: prompts, Scale: 0.7,
		IDs: []int32{-1, -1, -1, 1, 2, 3, 4, 5, 6},
		Pos: []int32{0, 1, 2, 3, 4, 5, 6, 5, 6},
	}
	prefix, leaf := []int32{0, 3}, []int32{0, 5}
	l.Groups = []kernels.Group{
		{N: 3}, {Row: 3, N: 2, Own: 3, Spans: prefix},
		{Row: 5, N: 2, Own: 5, Spans: leaf}, {Row: 7, N: 2, Own: 7, Spans: leaf},
	}
	addTarget := func(row, start int, above []int32) {
		spans := append(slices.Clone(above), int32(start), int32(row))
		l.TargetGroups = append(l.TargetGroups,
			kernels.Group{Row: len(l.TargetRows), N: 1, Own: row, Spans: spans})
		l.TargetRows = append(l.TargetRows, int32(row))
		l.TargetIDs = append(l.TargetIDs, int32(row*5%vocab))
	}
	if all {
		for _, g := range l.Groups {
			for i := range g.N {
				addTarget(g.Row+i, g.Own, g.Spans)
			}
		}
		return l
	}
	addTarget(2, 0, nil)
	addTarget(4, 3, prefix)
	addTarget(4, 3, prefix)
	addTarget(6, 5, leaf)
	addTarget(8, 7, leaf)
	return l
}

// block is a piece of a model over the embedded rows x [T, D].
type block struct {
	name        string
	head        int  // columns of the result
	someTargets bool // the result has only the target rows
	embed       ops.Embedding
	after       ops.Head
	build       build
}

// build adds a block to g and returns its result [T, head].
type build = func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node

func identity(_ *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return x }

func attention(r *rand.Rand, targets bool, want ops.Rows) *ops.Attention {
	h := kernels.Heads{Q: 4, KV: 2, Dim: 6, Scale: 0.5}
	return &ops.Attention{
		Name: "attn", Heads: h, Rotary: kernels.NewRotary(6, 100), Targets: targets, GradRows: want,
		Q: ops.Linear{Weight: weight(r, "q", h.QCols(), width, false), Bias: vector(r, h.QCols(), 0)},
		K: ops.Linear{Weight: weight(r, "k", h.KVCols()/2, width, true)},
		V: ops.Linear{Weight: weight(r, "v", h.KVCols()/2, width, false)},
	}
}

// fused returns an attention with one matrix for queries, keys and values, head by head.
func fused(r *rand.Rand, targets bool, want ops.Rows) *ops.Attention {
	h := kernels.Heads{Q: 4, KV: 2, Dim: 6, Scale: 0.5}
	qkv := ops.Linear{Weight: weight(r, "qkv", 48, width, false), Bias: vector(r, 48, 0)}
	return &ops.Attention{
		Name: "attn", Heads: h, Rotary: kernels.NewRotary(4, 100), Targets: targets, GradRows: want,
		Fused: &ops.Fused{
			Linear: qkv, Q: []int{0, 6, 24, 30}, K: []int{12, 36}, V: []int{18, 42},
		},
	}
}

func blocks() []block {
	rms := func(r *rand.Rand, name string, n int) ops.Norm {
		return ops.Norm{Name: name, Weight: vector(r, n, 1), Eps: 1e-5}
	}
	linear := func(r *rand.Rand, name string, out, in int) ops.Linear {
		return ops.Linear{Weight: weight(r, name, out, in, false)}
	}
	attend := func(change func(r *rand.Rand, a *ops.Attention)) build {
		return func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			a := attention(r, false, ops.AllRows)
			change(r, a)
			return g.Attend(x, a)
		}
	}
	// parallel returns attention and an MLP that both read x.
	parallel := func(last bool, want ops.Rows) build {
		return func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			h, skip := g.Fork(x, rms(r, "rms", width))
			y := g.Linear(g.Attend(h, attention(r, last, want)), linear(r, "o", width, 24))
			rms2 := rms(r, "rms2", width)
			second := g.SecondPath(skip, last)
			gate, up := linear(r, "gate", 8, width), linear(r, "up", 8, width)
			z := g.Linear(g.Norm(second, rms2), gate, up)
			z = g.Linear(g.Gated(z, kernels.SiLU, "act"), linear(r, "down", width, 8))
			return g.JoinBoth(skip, y, second, z, last)
		}
	}
	list := []block{
		{name: "Embed", head: width, build: identity},
		{name: "EmbedScaled", head: width, embed: ops.Embedding{Scale: 3, All: 0.7, Offset: 2},
			build: identity},
		{name: "HeadScaledAndCapped", head: width, after: ops.Head{Scale: 0.5, Cap: 4}, build: identity},
		{name: "RMSNorm", head: width,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				return g.Norm(x, rms(r, "rms", width))
			}},
		{name: "LayerNorm", head: width, build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Norm(x, ops.Norm{Name: "ln", Weight: vector(r, width, 1), Bias: vector(r, width, 0),
				Eps: 1e-5})
		}},
		{name: "Scale", head: width,
			build: func(g *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return g.Scale(x, 0.4, "scale") }},
		{name: "Linear", head: 20, build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Linear(x, linear(r, "a", 8, width),
				ops.Linear{Weight: weight(r, "b", 12, width, true),
					Bias: vector(r, 12, 0)})
		}},
		{name: "Attend", head: 24, build: attend(func(*rand.Rand, *ops.Attention) {})},
		{name: "AttendInAWindow", head: 24,
			build: attend(func(_ *rand.Rand, a *ops.Attention) { a.Heads.Window = 3 })},
		{name: "AttendCapped", head: 24,
			build: attend(func(_ *rand.Rand, a *ops.Attention) { a.Heads.Cap = 1.5 })},
		{name: "AttendWithBiases", head: 24,
			build: attend(func(_ *rand.Rand, a *ops.Attention) {
				a.Rotary, a.Heads.Bias = nil, kernels.NewALiBi(4)
			})},
		{name: "AttendWithNormedHeads", head: 24, build: attend(func(r *rand.Rand, a *ops.Attention) {
			q, k := rms(r, "q", 6), rms(r, "k", 6)
			a.QNorm, a.KNorm = &q, &k
		})},
		{name: "AttendWithNormedRows", head: 24, build: attend(func(r *rand.Rand, a *ops.Attention) {
			q, k := rms(r, "q", 24), rms(r, "k", 12)
			a.QNorm, a.KNorm = &q, &k
		})},
		{name: "AttendForPromptRows", head: 24,
			build: attend(func(_ *rand.Rand, a *ops.Attention) { a.GradRows = ops.PromptRows })},
		{name: "AttendNormedForPromptRows", head: 24,
			build: attend(func(r *rand.Rand, a *ops.Attention) {
				q, k := rms(r, "q", 6), rms(r, "k", 6)
				a.GradRows, a.QNorm, a.KNorm = ops.PromptRows, &q, &k
			})},
		{name: "AttendFromTargets", head: 24, someTargets: true,
			build: attend(func(_ *rand.Rand, a *ops.Attention) { a.Targets = true })},
		{name: "AttendFused", head: 24,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				return g.Attend(x, fused(r, false, ops.AllRows))
			}},
		{name: "AttendFusedForPromptRows", head: 24,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				return g.Attend(x, fused(r, false, ops.PromptRows))
			}},
		{name: "AttendFusedFromTargets", head: 24, someTargets: true,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				return g.Attend(x, fused(r, true, ops.AllRows))
			}},
		{name: "ForkAndJoin", head: width, build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			h, skip := g.Fork(x, rms(r, "rms", width))
			return g.Join(skip, g.Linear(h, linear(r, "y", width, width)), false)
		}},
		{name: "ForkWithoutNorm", head: width, build: func(g *ops.Graph, r *rand.Rand,
			x *G.Node) *G.Node {
			h, skip := g.Fork(x, ops.Norm{Name: "none"})
			return g.Join(skip, g.Norm(g.Linear(h, linear(r, "y", width, width)), rms(r, "post", width)),
				false)
		}},
		{name: "ForkAndJoinForPromptRows", head: width,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				h, skip := g.Fork(x, rms(r, "rms", width))
				return g.Join(skip, g.Linear(g.Attend(h, attention(r, false, ops.PromptRows)),
					linear(r, "o", width, 24)), false)
			}},
		{name: "ForkAndJoinTargets", head: width, someTargets: true,
			build: func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
				h, skip := g.Fork(x, rms(r, "rms", width))
				return g.Join(skip, g.Linear(g.Attend(h, attention(r, true, ops.AllRows)),
					linear(r, "o", width, 24)), true)
			}},
		{name: "Parallel", head: width, after: ops.Head{Scale: 0.25},
			build: parallel(false, ops.AllRows)},
		{name: "ParallelForPromptRows", head: width, after: ops.Head{Scale: 0.25},
			build: parallel(false, ops.PromptRows)},
		{name: "ParallelTargets", head: width, after: ops.Head{Scale: 0.25}, someTargets: true,
			build: parallel(true, ops.AllRows)},
	}
	for act, name := range map[kernels.Activation]string{
		kernels.SiLU: "SiLU", kernels.GELU: "GELU", kernels.GELUTanh: "GELUTanh", kernels.ReLU: "ReLU",
	} {
		plain := func(g *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return g.Act(x, act, "act") }
		gated := func(g *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return g.Gated(x, act, "act") }
		list = append(list,
			block{name: "Act/" + name, head: width, build: plain},
			block{name: "Gated/" + name, head: width / 2, build: gated})
	}
	return list
}

// lossAndGrad returns a function that runs embedding, block and loss with their gradient.
func lossAndGrad(
	t *testing.T, p *kernels.Pool, b block,
) func(values []float32, l *ops.Layout) (loss float64, grad []float32) {
	t.Helper()
	r := random(7)
	g := ops.NewGraph(p, &ops.Arena{})
	in := g.Input(prompts, width)
	positions := weight(r, "positions", 16, width, false)
	b.embed.Tokens, b.embed.Positions = weight(r, "tokens", vocab, width, false), &positions
	x := g.Embed(in, b.embed)
	b.after.Linear = ops.Linear{Weight: weight(r, "head", vocab, b.head, false),
		Bias: vector(r, vocab, 0)}
	loss := g.HeadLoss(b.build(g, r, x), b.after)
	grad, err := g.Grad(loss, in)
	if err != nil {
		t.Fatal(err)
	}
	g.Compile(grad)
	return func(values []float32, l *ops.Layout) (float64, []float32) {
		rows := tensor.New(tensor.WithShape(prompts, width), tensor.WithBacking(values))
		if err := G.Let(in, rows); err != nil {
			t.Fatal(err)
		}
		g.Layout = l
		if err := g.Run(); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, nll := range g.NLL {
			sum += float64(nll)
		}
		return sum * float64(l.Scale), append([]float32(nil), ops.Value(grad).Data...)
	}
}

func TestEveryBackwardPassEqualsFiniteDifferences(t *testing.T) {
	for _, name := range kernels.Names(kernels.F32) {
		for _, b := range blocks() {
			t.Run(b.name+"/"+name, func(t *testing.T) {
				p, err := kernels.New(kernels.Options{Threads: 2, Kernels: name})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				run, l := lossAndGrad(t, p, b), layout(!b.someTargets)
				values := vector(random(8), prompts*width, 0)
				_, grad := run(values, l)
				if len(grad) != len(values) {
					t.Fatalf("the gradient has %d values, want %d", len(grad), len(values))
				}
				top := 0.0
				for _, g := range grad {
					top = max(top, math.Abs(float64(g)))
				}
				if top == 0 {
					t.Fatal("the gradient is zero")
				}
				for i := range values {
					v := values[i]
					values[i] = v + step
					up, _ := run(values, l)
					values[i] = v - step
					down, _ := run(values, l)
					values[i] = v
					if want := (up - down) / (2 * step); !(math.Abs(want-float64(grad[i])) <= tolerance*top) {
						t.Fatalf("d loss / d value %d is %g, finite differences give %g (largest %g)",
							i, grad[i], want, top)
					}
				}
			})
		}
	}
}

// The vocabulary and the rows need more than one chunk each. Some targets are almost certain: a
// sum that includes the target would leave no digits of 1 − p.
func TestTheLossInChunksEqualsTheDefinition(t *testing.T) {
	const vocab, n = 5000, 300
	r := random(11)
	w, bias := weight(r, "head", vocab, width, false), vector(r, vocab, 0)
	for i := range bias {
		bias[i] *= 12
	}
	x, targets := vector(r, n*width, 0), make([]int32, n)
	for i := range targets {
		targets[i] = int32(r.IntN(vocab))
		if i%3 == 0 {
			targets[i] = int32(slices.Index(bias, slices.Max(bias))) // usually the most likely
		}
	}
	for _, head := range []ops.Head{{}, {Scale: 0.5}, {Scale: 2, Cap: 30}} {
		var want float64
		wantGrad := make([]float64, n*width)
		wantHead := make([]float64, vocab*(width+1)) // of each token's weights and its bias
		for i, target := range targets {
			l, slope, top := make([]float64, vocab), make([]float64, vocab), math.Inf(-1)
			for v := range l {
				l[v], slope[v] = float64(bias[v]), 1
				for j := range width {
					l[v] += float64(x[i*width+j]) * float64(kernels.Float(w.Data, w.DType, v*width+j))
				}
				if head.Scale != 0 {
					l[v], slope[v] = l[v]*float64(head.Scale), float64(head.Scale)
				}
				if c := float64(head.Cap); c != 0 {
					th := math.Tanh(l[v] / c)
					l[v], slope[v] = c*th, slope[v]*(1-th*th)
				}
				top = max(top, l[v])
			}
			var all, others float64
			for v := range l {
				e := math.Exp(l[v] - top)
				if all += e; v != int(target) {
					others += e
				}
			}
			want += math.Log(all) + top - l[target]
			for v := range l {
				d := math.Exp(l[v]-top) / all
				if v == int(target) {
					d = -others / all
				}
				for j := range width {
					wantGrad[i*width+j] += d * slope[v] * float64(kernels.Float(w.Data, w.DType,
						v*width+j))
					wantHead[v*(width+1)+j] += d * slope[v] * float64(x[i*width+j])
				}
				wantHead[v*(width+1)+width] += d * slope[v]
			}
		}
		for _, name := range kernels.Names(kernels.F32) {
			p, err := kernels.New(kernels.Options{Threads: 2, Kernels: name})
			if err != nil {
				t.Fatal(err)
			}
			trained := &ops.Grad{Weight: kernels.NewMatrix(vocab, width), Bias: make([]float32, vocab)}
			head.Linear = ops.Linear{Weight: w, Bias: bias, Grad: trained}
			g := ops.NewGraph(p, &ops.Arena{})
			in := g.Input(n, width)
			grad, err := g.Grad(g.HeadLoss(g.Embed(in, ops.Embedding{Tokens: w}), head), in)
			if err != nil {
				t.Fatal(err)
			}
			g.Compile(grad)
			if err := G.Let(in, tensor.New(tensor.WithShape(n, width),
				tensor.WithBacking(x))); err != nil {
				t.Fatal(err)
			}
			g.Layout = &ops.Layout{
				Prompts: n, IDs: make([]int32, n), TargetRows: make([]int32, n), TargetIDs: targets,
				Scale: 1,
			}
			if err := g.Run(); err != nil {
				t.Fatal(err)
			}
			var loss float64
			for _, nll := range g.NLL {
				loss += float64(nll)
			}
			if !(math.Abs(loss-want) <= 1e-6*want) {
				t.Errorf("%s: loss %g, want %g", name, loss, want)
			}
			for i := 0; i < n*width; i += width {
				var far, size float64
				for j, d := range ops.Value(grad).Data[i : i+width] {
					far, size = max(far, math.Abs(float64(d)-wantGrad[i+j])),
						max(size, math.Abs(wantGrad[i+j]))
				}
				if !(far <= 2e-5*size) { // relative to this row, however small it is
					t.Fatalf("%s: the gradient of row %d is off by %g, its largest is %g", name,
						i/width, far, size)
				}
			}
			for v := range vocab {
				for j, d := range append(slices.Clone(trained.Weight.Row(v)), trained.Bias[v]) {
					if want := wantHead[v*(width+1)+j]; !(math.Abs(float64(d)-want) <= 1e-5+1e-6*math.Abs(want)) {
						t.Fatalf("%s: the gradient of token %d, %d, is %g, want %g", name, v, j, d, want)
					}
				}
			}
			p.Close()
		}
	}
}

func TestALogitThatOverflowsGivesNaN(t *testing.T) {
	p, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w := weight(random(1), "head", vocab, width, false)
	for _, at := range []int{3, 4} { // the target, and another
		bias := make([]float32, vocab)
		bias[at] = float32(math.Inf(1))
		g := ops.NewGraph(p, &ops.Arena{})
		in := g.Input(1, width)
		g.HeadLoss(g.Embed(in, ops.Embedding{Tokens: w}),
			ops.Head{Linear: ops.Linear{Weight: w, Bias: bias}})
		g.Compile()
		row := tensor.New(tensor.WithShape(1, width), tensor.WithBacking(make([]float32, width)))
		if err := G.Let(in, row); err != nil {
			t.Fatal(err)
		}
		g.Layout = &ops.Layout{
			Prompts: 1, IDs: make([]int32, 1), TargetRows: []int32{0}, TargetIDs: []int32{3},
		}
		if err := g.Run(); err != nil {
			t.Fatal(err)
		}
		if nll := float64(g.NLL[0]); !math.IsNaN(nll) {
			t.Errorf("with logit %d infinite, -log p is %g, want NaN", at, nll)
		}
	}
}

func TestAPanicInAnOperatorIsAnErrorThatNamesIt(t *testing.T) {
	p, err := kernels.New(kernels.Options{Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	g := ops.NewGraph(p, &ops.Arena{})
	in := g.Input(prompts, width)
	x := g.Embed(in, ops.Embedding{Tokens: weight(random(1), "tokens", 2, width, false)})
	out := g.Logits(x,
		ops.Head{Linear: ops.Linear{Weight: weight(random(1), "head", vocab, width, false)}})
	g.Compile(out)
	zero := tensor.New(tensor.WithShape(prompts, width), tensor.Of(tensor.Float32))
	if err := G.Let(in, zero); err != nil {
		t.Fatal(err)
	}
	g.Layout = layout(true) // its ids are beyond the two tokens
	if err := g.Run(); err == nil {
		t.Fatal("no error")
	} else if want := "operator embed"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
}

func TestAnUnreachableGraphIsCollectedWithItsMemory(t *testing.T) {
	p, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	arena := func() weak.Pointer[ops.Arena] {
		arena := &ops.Arena{}
		g := ops.NewGraph(p, arena)
		in := g.Input(prompts, width)
		x := g.Embed(in, ops.Embedding{Tokens: weight(random(1), "tokens", vocab, width, false)})
		g.Compile(g.Logits(x,
			ops.Head{Linear: ops.Linear{Weight: weight(random(1), "head", vocab, width, false)}}))
		zero := tensor.New(tensor.WithShape(prompts, width), tensor.Of(tensor.Float32))
		if err := G.Let(in, zero); err != nil {
			t.Fatal(err)
		}
		g.Layout = layout(true)
		if err := g.Run(); err != nil {
			t.Fatal(err)
		}
		return weak.Make(arena)
	}()
	for range 3 {
		runtime.GC()
	}
	if arena.Value() != nil {
		t.Error("the graph's arena is still reachable")
	}
}
