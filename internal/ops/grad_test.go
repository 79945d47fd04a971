package ops_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// Every operator's way back is compared with finite differences of its way forward, through an embedding below it and a
// loss above. The loss is f32: with steps of 1e-2 its rounding and the third derivative leave about 1e-3 of the gradient.
const (
	step      = 1e-2
	tolerance = 4e-3 // of the largest derivative
)

const (
	width   = 12 // D
	prompts = 3  // P
	rows    = 9  // T: the prompts, a stem of 2 they share, leaves of 2 and 2
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

// layout is the forest of the constants above. With all, every row is a target row, else some are, one of them twice.
func layout(all bool) *ops.Layout {
	l := &ops.Layout{Prompts: prompts, IDs: []int32{-1, -1, -1, 1, 2, 3, 4, 5, 6}, Pos: []int32{0, 1, 2, 3, 4, 5, 6, 5, 6}, Scale: 0.7}
	stem, leaf := []int32{0, 3}, []int32{0, 5}
	l.Groups = []kernels.Group{{N: 3}, {Row: 3, N: 2, Own: 3, Spans: stem}, {Row: 5, N: 2, Own: 5, Spans: leaf}, {Row: 7, N: 2, Own: 7, Spans: leaf}}
	ask := func(row, start int, above []int32) {
		l.TargetGroups = append(l.TargetGroups, kernels.Group{Row: len(l.TargetRows), N: 1, Own: row, Spans: append(append([]int32(nil), above...), int32(start), int32(row))})
		l.TargetRows = append(l.TargetRows, int32(row))
		l.TargetIDs = append(l.TargetIDs, int32(row*5%vocab))
	}
	if all {
		for _, g := range l.Groups {
			for i := range g.N {
				ask(g.Row+i, g.Own, g.Spans)
			}
		}
		return l
	}
	ask(2, 0, nil)
	ask(4, 3, stem)
	ask(4, 3, stem)
	ask(6, 5, leaf)
	ask(8, 7, leaf)
	return l
}

// block is a piece of a model over the embedded rows x [T, D]; its result has the head's width.
type block struct {
	name  string
	head  int // columns of the result
	few   bool
	build func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node
}

func attention(r *rand.Rand, targets bool, want ops.Rows) *ops.Attention {
	h := kernels.Heads{Q: 4, KV: 2, Dim: 6, Scale: 0.5}
	return &ops.Attention{Name: "attn", Heads: h, Rotary: kernels.NewRotary(6, 100), Targets: targets, Want: want,
		Q: ops.Linear{Weight: weight(r, "q", h.QCols(), width, false), Bias: vector(r, h.QCols(), 0)},
		K: ops.Linear{Weight: weight(r, "k", h.KVCols()/2, width, true)},
		V: ops.Linear{Weight: weight(r, "v", h.KVCols()/2, width, false)}}
}

func blocks() []block {
	rms := func(r *rand.Rand) ops.Norm { return ops.Norm{Name: "rms", Weight: vector(r, width, 1), Eps: 1e-5} }
	return []block{
		{"Embed", width, false, func(_ *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return x }},
		{"RMSNorm", width, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node { return g.Norm(x, rms(r)) }},
		{"LayerNorm", width, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Norm(x, ops.Norm{Name: "ln", Weight: vector(r, width, 1), Bias: vector(r, width, 0), Eps: 1e-5})
		}},
		{"Linear", 20, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Linear(x, ops.Linear{Weight: weight(r, "a", 8, width, false)}, ops.Linear{Weight: weight(r, "b", 12, width, true), Bias: vector(r, 12, 0)})
		}},
		{"SwiGLU", width / 2, false, func(g *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return g.SwiGLU(x, "act") }},
		{"GELU", width, false, func(g *ops.Graph, _ *rand.Rand, x *G.Node) *G.Node { return g.GELU(x, "act") }},
		{"Attend", 24, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Attend(x, attention(r, false, ops.AllRows))
		}},
		{"AttendForPromptRows", 24, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Attend(x, attention(r, false, ops.PromptRows))
		}},
		{"AttendFromTargets", 24, true, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			return g.Attend(x, attention(r, true, ops.AllRows))
		}},
		{"ForkAndJoin", width, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			h, skip := g.Fork(x, rms(r), ops.AllRows)
			return g.Join(skip, g.Linear(h, ops.Linear{Weight: weight(r, "y", width, width, false)}), false)
		}},
		{"ForkAndJoinForPromptRows", width, false, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			h, skip := g.Fork(x, rms(r), ops.PromptRows)
			return g.Join(skip, g.Linear(g.Attend(h, attention(r, false, ops.PromptRows)), ops.Linear{Weight: weight(r, "o", width, 24, false)}), false)
		}},
		{"ForkAndJoinTargets", width, true, func(g *ops.Graph, r *rand.Rand, x *G.Node) *G.Node {
			h, skip := g.Fork(x, rms(r), ops.AllRows)
			return g.Join(skip, g.Linear(g.Attend(h, attention(r, true, ops.AllRows)), ops.Linear{Weight: weight(r, "o", width, 24, false)}), true)
		}},
	}
}

// machine builds embed → block → loss with its gradient.
func machine(t *testing.T, p *kernels.Pool, b block) func(values []float32, l *ops.Layout) (loss float64, grad []float32) {
	t.Helper()
	r := random(7)
	g := ops.NewGraph(p, &ops.Arena{})
	in := g.Input(prompts, width)
	positions := weight(r, "positions", 16, width, false)
	x := g.Embed(in, ops.Embedding{Tokens: weight(r, "tokens", vocab, width, false), Positions: &positions})
	loss := g.HeadLoss(b.build(g, r, x), ops.Linear{Weight: weight(r, "head", vocab, b.head, false), Bias: vector(r, vocab, 0)})
	grad, err := g.Grad(loss, in)
	if err != nil {
		t.Fatal(err)
	}
	g.Compile(grad)
	return func(values []float32, l *ops.Layout) (float64, []float32) {
		if err := G.Let(in, tensor.New(tensor.WithShape(prompts, width), tensor.WithBacking(values))); err != nil {
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

func TestEveryWayBackEqualsFiniteDifferences(t *testing.T) {
	for _, name := range kernels.Names(kernels.F32) {
		for _, b := range blocks() {
			t.Run(b.name+"/"+name, func(t *testing.T) {
				p, err := kernels.New(kernels.Options{Threads: 2, Kernels: name})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				run, l := machine(t, p, b), layout(!b.few)
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
						t.Fatalf("d loss / d value %d is %g, finite differences give %g (largest %g)", i, grad[i], want, top)
					}
				}
			})
		}
	}
}

func TestLossInChunksEqualsTheLossOfEachRowAlone(t *testing.T) {
	p, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	run := machine(t, p, blocks()[11])
	values := vector(random(8), prompts*width, 0)
	one := layout(false)
	want, wantGrad := run(values, one)
	many := layout(false) // 40 times the same targets: more than a chunk
	for range 39 {
		for i, g := range one.TargetGroups {
			g.Row = len(many.TargetRows)
			many.TargetGroups = append(many.TargetGroups, g)
			many.TargetRows = append(many.TargetRows, one.TargetRows[i])
			many.TargetIDs = append(many.TargetIDs, one.TargetIDs[i])
		}
	}
	many.Scale /= 40
	got, grad := run(values, many)
	if math.Abs(got-want) > 1e-4*want {
		t.Errorf("loss %g, want %g", got, want)
	}
	for i := range grad {
		if math.Abs(float64(grad[i]-wantGrad[i])) > 1e-4 {
			t.Fatalf("gradient %d is %g, want %g", i, grad[i], wantGrad[i])
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
	out := g.Logits(x, ops.Linear{Weight: weight(random(1), "head", vocab, width, false)})
	g.Compile(out)
	if err := G.Let(in, tensor.New(tensor.WithShape(prompts, width), tensor.WithBacking(make([]float32, prompts*width)))); err != nil {
		t.Fatal(err)
	}
	g.Layout = layout(true) // its ids are beyond the two tokens
	if err := g.Run(); err == nil {
		t.Fatal("no error")
	} else if want := "operator embed"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
}
