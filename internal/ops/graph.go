// Package ops has the operators of a language model's graph: each file is one operator of gorgonia with its way forward and,
// beside it, its way back. The weights are frozen: an operator holds them, they are no nodes, and only the gradient of what
// flows through is ever computed. The prompt is the graph's one differentiated input.
//
// A graph is built once and runs on batches of any size: operators take their sizes from the Layout of the run, the shapes
// gorgonia infers are nominal. Values lie in an arena; a buffer returns to it when its last reader has run, and an operator
// that can work in place takes its input's buffer if nobody else needs it.
package ops

import (
	"fmt"
	"hash"
	"hash/fnv"
	"runtime"
	"time"
	"unsafe"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"ptune/internal/kernels"
)

// Matrix is a row-major view of f32 values.
type Matrix = kernels.Matrix

// Layout is the batch a run works on: T packed rows, of which the first Prompts are soft prompts. Where the batch is a part, the
// first Above keys are those of its trunk.
type Layout struct {
	Above        int
	Prompts      int
	IDs          []int32         // [T] token ids, negative at the rows of soft prompts
	Pos          []int32         // [T] positions
	Groups       []kernels.Group // every row as a query
	TargetGroups []kernels.Group // the rows of TargetRows as queries
	TargetRows   []int32         // [Tt] the rows that predict
	TargetIDs    []int32         // [Tt] what they predict; not read without a loss
	CacheRows    []int32         // [T] where keys and values go, if the graph has a cache; groups then name cache rows
	Scale        float32         // the summed loss's gradient is multiplied by it; 0: no gradient is computed
}

// Graph is a gorgonia graph under construction and, after Compile, a machine that runs it.
type Graph struct {
	Pool   *kernels.Pool
	Layout *Layout          // of the run to come
	Cache  []kernels.Matrix // keys and values of each layer by head, as Attend takes them; nil outside generation
	NLL    []float32        // after a run with a loss: −log p of each target
	Trunk  *Trunk           // of a batch in parts, for its trunk's run and theirs; nil: the batch is whole
	Parts  func() error     // runs, or where this run is planned plans, the parts that hang from this run's rows: between its way forward and its way back

	Recompute Recompute                                                       // in the run to come
	Observe   func(operator string, flops, bytes float64, took time.Duration) // told of each operator after it has run: what it multiplied, the values it read and wrote; nil: nobody

	g       *G.ExprGraph
	arena   *Arena
	marked  int // with Again
	all     []*operator
	machine G.VM
	plan    *Plan // being made: nothing is computed
	planned Arena // of plans
}

// Recompute is which values are dropped when the way forward has read them, and made again for the way back from what is kept.
type Recompute struct {
	Marked   int  // the first so many of those marked with Again
	Attended bool // what attention reads, in every layer
}

// Plan is what a run will take.
type Plan struct {
	Rows   int     // computed at a time, at most
	FLOPs  float64 // of products and attention, a multiplication with its addition as two
	Bytes  int64   // of the values at the fullest moment
	Packed int64   // of the kernels' own copy of what is multiplied
}

// NewGraph is an empty graph whose operators run on pool and keep their values in arena, which graphs that do not run at
// the same time can share.
func NewGraph(pool *kernels.Pool, arena *Arena) *Graph {
	return &Graph{Pool: pool, arena: arena, g: G.NewGraph()}
}

// Input is the soft prompts' node, [rows, cols].
func (g *Graph) Input(rows, cols int) *G.Node {
	return G.NewMatrix(g.g, G.Float32, G.WithShape(rows, cols), G.WithName("prompt"))
}

// Again marks a value that the way back can make anew from what else is kept, as Recompute.Marked says.
func (g *Graph) Again(n *G.Node) *G.Node {
	i := g.marked
	g.marked++
	n.Op().(*operator).drop = func(r Recompute) bool { return i < r.Marked }
	return n
}

// attended marks what attention reads, which takes longer to make anew for each byte than the values of Again.
func (g *Graph) attended(n *G.Node) *G.Node {
	n.Op().(*operator).drop = func(r Recompute) bool { return r.Attended }
	return n
}

// Grad is the node of d loss / d input.
func (g *Graph) Grad(loss, input *G.Node) (*G.Node, error) {
	for _, o := range g.all {
		o.forward = o.uses
	}
	one := G.NewScalar(g.g, G.Float32, G.WithName("one"), G.WithValue(float32(1)))
	grads, err := G.Backpropagate(G.Nodes{loss}, G.Nodes{one}, G.Nodes{input})
	if err != nil {
		return nil, fmt.Errorf("differentiate the graph: %w", err)
	}
	return grads[0], nil
}

// Compile makes the machine. The values of the results can be read after each run.
func (g *Graph) Compile(results ...*G.Node) {
	for _, r := range results {
		r.Op().(*operator).uses++
	}
	g.machine = G.NewTapeMachine(g.g)
	runtime.SetFinalizer(g.machine, nil) // it is for CUDA; with it a machine whose operators know their graph, and so it, would live for ever
}

// Run runs the graph on g.Layout.
func (g *Graph) Run() error {
	for _, o := range g.all {
		o.recycle() // results of the run before
		o.again = o.drop != nil && o.drop(g.Recompute)
	}
	defer g.machine.Reset()
	return g.machine.RunAll()
}

// Plan goes through a run on g.Layout without computing anything.
func (g *Graph) Plan() (Plan, error) {
	g.planned.reset()
	p := &Plan{}
	err := g.planIn(&g.planned, p)
	p.Bytes = 4 * int64(g.planned.touched())
	return *p, err
}

// PlanWithin goes through a run of a part while the trunk's is planned.
func (g *Graph) PlanWithin(trunk *Graph) error { return g.planIn(trunk.arena, trunk.plan) }

func (g *Graph) planIn(room *Arena, p *Plan) error {
	arena := g.arena
	g.arena, g.plan = room, p
	defer func() { g.arena, g.plan = arena, nil }()
	for _, o := range g.all {
		o.out.Data = nil // what is left of the run before stays the arena's
	}
	err := g.Run()
	for _, o := range g.all {
		o.out.Data = nil
	}
	return err
}

// Value is the matrix a result holds after a run, valid until the next.
func Value(n *G.Node) Matrix { return n.Op().(*operator).out }

// operator is a gorgonia operator over matrices; the files of this package fill in what it does.
type operator struct {
	graph   *Graph
	name    string                                 // with the weight it belongs to: unique in the graph, for gorgonia merges nodes that hash alike
	scalar  bool                                   // the output is one number
	parts   bool                                   // when it has run, the graph's Parts do
	size    func(in []Matrix) (rows, cols int)     // of the output
	run     func(out Matrix, in []Matrix)          // the work
	inPlace int                                    // the input whose buffer the output may take over, counted from 1; 0: none
	diff    []bool                                 // which inputs are differentiated; nil: none
	back    func(in G.Nodes, dout *G.Node) G.Nodes // the gradients' nodes, nil where diff is false
	flops   func(out Matrix, in []Matrix) float64  // nil: not worth counting
	drop    func(Recompute) bool                   // tells whether the output is dropped after the way forward, and made again where the way back reads it; nil: never

	from       G.Nodes     // the inputs
	args       []*operator // their operators; nil at the graph's own inputs
	uses, left int         // readers of the output, in the graph and still to come in this run
	forward    int         // those of the way forward
	again      bool        // dropped and made again in this run
	in         []Matrix
	out        Matrix
	value      value
}

// value is an operator's output as gorgonia sees it. gorgonia keeps the value of every node from one run to the next; this one
// holds on to no buffer, so the arena alone decides which memory lives.
type value struct{ of *operator }

func (v *value) Shape() tensor.Shape     { return tensor.Shape{v.of.out.Rows, v.of.out.Cols} }
func (v *value) Size() int               { return len(v.of.out.Data) }
func (v *value) Data() any               { return v.of.out.Data }
func (v *value) Dtype() tensor.Dtype     { return G.Float32 }
func (v *value) Uintptr() uintptr        { return uintptr(v.Pointer()) }
func (v *value) MemSize() uintptr        { return 4 * uintptr(v.Size()) }
func (v *value) Pointer() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(v.of.out.Data)) }

// Format writes what the value belongs to, not its numbers.
func (v *value) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%s %v", v.of.name, v.Shape()) }

// apply adds an operator to the graph.
func (g *Graph) apply(o *operator, in ...*G.Node) *G.Node {
	o.graph, o.value.of, o.from = g, o, in
	o.args, o.in = make([]*operator, len(in)), make([]Matrix, len(in))
	for i, n := range in {
		if p, ok := n.Op().(*operator); ok {
			o.args[i] = p
			p.uses++
		}
	}
	g.all = append(g.all, o)
	return G.Must(G.ApplyOp(o, in...))
}

// Do runs the operator. Its panics, which mean a mistake in this program, become errors: gorgonia calls it on a goroutine
// of its own, where nobody else could catch them.
func (o *operator) Do(values ...G.Value) (v G.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("operator %s: %v", o.name, r)
		}
	}()
	for i, p := range o.args {
		if p != nil {
			if p.again && p.out.Data == nil {
				p.rerun()
			}
			o.in[i] = p.out
		} else if d, ok := values[i].(*tensor.Dense); ok {
			o.in[i] = kernels.View(d.Data().([]float32), d.Shape()[0], d.Shape()[1])
		}
	}
	o.left = o.uses
	o.compute()
	for _, p := range o.args {
		if p != nil {
			p.read()
		}
	}
	if o.scalar {
		return G.NewF32(o.out.Data[0]), nil
	}
	return &o.value, nil
}

// compute makes the output of o.in.
func (o *operator) compute() {
	g := o.graph
	rows, cols := 1, 1
	if !o.scalar {
		rows, cols = o.size(o.in)
	}
	if p := o.inPlace; p > 0 && o.args[p-1] != nil && o.args[p-1].left == 1 && len(o.in[p-1].Data) >= rows*cols {
		o.out = kernels.View(o.args[p-1].surrender(), rows, cols)
	} else {
		o.out = kernels.View(g.arena.take(rows*cols), rows, cols)
	}
	flops := 0.0
	if o.flops != nil && (g.plan != nil || g.Observe != nil) {
		flops = o.flops(o.out, o.in)
	}
	if g.plan != nil {
		g.plan.FLOPs += flops
	} else {
		begin := time.Now()
		o.run(o.out, o.in)
		if g.Observe != nil {
			took, values := time.Since(begin), len(o.out.Data)
			for _, m := range o.in {
				values += m.Rows * m.Cols
			}
			g.Observe(o.name, flops, 4*float64(values), took)
		}
	}
	if o.parts && g.Parts != nil {
		if err := g.Parts(); err != nil {
			panic(err)
		}
	}
	clear(o.in) // or they would keep buffers alive that the arena has dropped
}

// rerun computes a dropped output again, and before it what it was made of.
func (o *operator) rerun() {
	for i, p := range o.args {
		if p.out.Data == nil {
			p.rerun()
			left := p.left
			p.left = 1 // o alone reads it this time, and may take it over
			defer func() { p.recycle(); p.left = left }()
		}
		o.in[i] = p.out
	}
	o.compute()
}

// read counts down a reader of the output, and gives its buffer back after the last.
func (o *operator) read() {
	o.left--
	if o.left == 0 || o.again && o.left == o.uses-o.forward {
		o.recycle()
	}
}

func (o *operator) recycle() {
	if o.out.Data != nil {
		o.graph.arena.give(o.surrender())
	}
}

// surrender leaves the buffer to the caller.
func (o *operator) surrender() []float32 {
	b := o.out.Data
	o.out.Data = nil
	return b
}

func (o *operator) Arity() int { return len(o.args) }

func (o *operator) Type() hm.Type {
	m := G.TensorType{Dims: 2, Of: G.Float32}
	var t []hm.Type
	for _, p := range o.args {
		if p != nil && p.scalar {
			t = append(t, G.Float32)
		} else {
			t = append(t, m)
		}
	}
	if o.scalar {
		return hm.NewFnType(append(t, G.Float32)...)
	}
	return hm.NewFnType(append(t, m)...)
}

// InferShape gives a nominal shape: sizes are known when the graph runs.
func (o *operator) InferShape(...G.DimSizer) (tensor.Shape, error) {
	if o.scalar {
		return tensor.ScalarShape(), nil
	}
	return tensor.Shape{2, 2}, nil
}

func (o *operator) ReturnsPtr() bool      { return true }
func (o *operator) CallsExtern() bool     { return false }
func (o *operator) OverwritesInput() int  { return -1 }
func (o *operator) String() string        { return o.name }
func (o *operator) WriteHash(h hash.Hash) { fmt.Fprint(h, o.name) }
func (o *operator) DiffWRT(int) []bool    { return o.diff }
func (o *operator) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

// gradient adds to the graph the way back from n to an earlier value that n was made of step by step, given n's gradient d.
func gradient(n, earlier, d *G.Node) *G.Node {
	for n != earlier {
		o := n.Op().(*operator)
		n, d = o.from[0], o.back(o.from, d)[0]
	}
	return d
}

// SymDiff adds the operator's way back to the graph.
func (o *operator) SymDiff(in G.Nodes, _, dout *G.Node) (G.Nodes, error) {
	return o.back(in, dout), nil
}
