// Package ops has the operators of a language model's graph. Each file is one gorgonia operator
// with its forward pass and, beside it, its backward pass. Weights are not nodes: an operator holds
// them, and only the gradient of what flows through it is a node. The soft prompts are the graph's
// one differentiated input. Where an adapter is trained, the operator adds the gradients of its
// weights to their buffers.
//
// A graph is built once and runs on batches of any size: operators take their sizes from the Layout
// of the run; the shapes gorgonia infers are nominal. Values lie in an arena. A buffer returns to
// it after its last reader has run, and an operator that can work in place takes over its input's
// buffer if nobody else reads it.
//
// Shapes are those of package model: T packed rows, Tt target rows, D hidden width, V vocabulary.
package ops

import (
	"errors"
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

// Layout is the batch of a run: T packed rows, of which the first Prompts are soft prompts. In a
// part of a split batch the first TrunkRows keys are those of its trunk.
type Layout struct {
	TrunkRows    int
	Prompts      int
	PromptValues []float32       // [Prompts, D] soft prompts; nil: they are the graph's input
	IDs          []int32         // [T] token ids, negative at the rows of soft prompts
	Pos          []int32         // [T] positions
	Groups       []kernels.Group // every row as a query
	TargetGroups []kernels.Group // the rows of TargetRows as queries
	TargetRows   []int32         // [Tt] the rows that predict
	TargetIDs    []int32         // [Tt] the tokens to predict; not read without a loss
	Asked        [][]int32       // [Tt] for HeadScores: tokens whose −log p is asked for, no two equal
	CacheRows    []int32         // [T] of keys and values; with a cache, Groups name cache rows
	Scale        float32         // factor of the loss's gradient; 0: no gradient is computed
}

// Graph is a gorgonia graph under construction and, after Compile, a machine that runs it.
type Graph struct {
	Pool      *kernels.Pool
	Layout    *Layout          // of the next run
	Cache     []kernels.Matrix // keys and values of each layer, by head; nil outside generation
	NLL       []float32        // after a run with a loss: −log p of each target, or of each asked token
	Margin    []float32        // after NLL without a gradient: each target's logit less every other one's
	Trunk     *Trunk           // in the runs of a split batch's trunk and parts, else nil
	Recompute Recompute        // in the next run
	Planner   *Planner         // if not nil, runs compute nothing and are added to its plan

	// Stop is asked before each operator; its error ends the run. nil: not called.
	Stop func() error

	// Observe is called after each operator with its multiplications and additions and the bytes of the
	// values it read and wrote. nil: not called.
	Observe func(operator string, flops, bytes float64, took time.Duration)

	g            *G.ExprGraph
	arena        *Arena
	recomputable int // values marked so far
	all          []*operator
	machine      G.VM
	pausing      bool // the run stops at the node that Pause made
}

// Recompute selects the activations that are dropped after the forward pass has read them and computed
// again when the backward pass needs them.
type Recompute struct {
	Marked          int  // of the values marked Recomputable, the first Marked
	AttentionInputs bool // queries, keys and values of every layer
}

// Plan is what a step costs.
type Plan struct {
	Rows   int     // largest number of rows computed at a time
	FLOPs  float64 // of matrix products and attention; a multiply-add counts as two
	Bytes  int64   // of values, at the fullest moment
	Packed int64   // of the kernels' packed copy of a product's input
}

// Planner adds up the plan of one or more runs.
type Planner struct {
	Plan
	arena Arena
}

// Reset begins another plan.
func (p *Planner) Reset() {
	p.Plan = Plan{}
	p.arena.forget()
}

// Close gives the planner's address space back.
func (p *Planner) Close() { p.arena.Close() }

// NewGraph returns an empty graph whose operators run on pool and keep their values in arena.
// Graphs that do not run at the same time can share an arena.
func NewGraph(pool *kernels.Pool, arena *Arena) *Graph {
	return &Graph{Pool: pool, arena: arena, g: G.NewGraph()}
}

// Input adds the node of the soft prompts, [rows, cols].
func (g *Graph) Input(rows, cols int) *G.Node {
	return G.NewMatrix(g.g, G.Float32, G.WithShape(rows, cols), G.WithName("prompt"))
}

// Recomputable marks a value that the backward pass can compute again from values that are kept.
func (g *Graph) Recomputable(n *G.Node) *G.Node {
	i := g.recomputable
	g.recomputable++
	n.Op().(*operator).recomputable = func(r Recompute) bool { return i < r.Marked }
	return n
}

// attentionInput marks what attention reads. It takes longer to compute again, for each byte, than the
// values marked Recomputable.
func (g *Graph) attentionInput(n *G.Node) *G.Node {
	n.Op().(*operator).recomputable = func(r Recompute) bool { return r.AttentionInputs }
	return n
}

// Pause returns n. RunToPause stops here.
func (g *Graph) Pause(n *G.Node) *G.Node {
	return g.apply(&operator{
		name: "pause", diff: []bool{true}, inPlace: 1, pauses: true, size: asFirst,
		run:  func(out Matrix, in []Matrix) { copyRows(out, in[0]) },
		back: func(_ G.Nodes, dout *G.Node) G.Nodes { return G.Nodes{dout} },
	}, n)
}

// Grad adds the backward pass and returns the node of d loss / d input.
func (g *Graph) Grad(loss, input *G.Node) (*G.Node, error) {
	for _, o := range g.all {
		o.forwardUses = o.uses
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
	// gorgonia's finalizer frees CUDA memory. It would keep the machine alive for ever, because the
	// machine's operators refer to the graph and the graph to the machine.
	runtime.SetFinalizer(g.machine, nil)
}

// Run runs the graph on g.Layout.
func (g *Graph) Run() error {
	g.begin()
	return g.Continue()
}

// RunToPause runs the graph on g.Layout up to its Pause. Other graphs can run before Continue, which
// runs the rest.
func (g *Graph) RunToPause() error {
	g.begin()
	g.pausing = true
	err := g.machine.RunAll()
	if err != nil && !g.pausing {
		return nil // the error is errPaused
	}
	g.pausing = false
	g.machine.Reset()
	return err
}

// Continue runs what RunToPause left. gorgonia's machine keeps its place when an operator returns an
// error, and executes that operator again.
func (g *Graph) Continue() error {
	defer g.machine.Reset()
	err := g.machine.RunAll()
	if g.Planner != nil {
		g.recycle() // planned results have no values
		g.Planner.Bytes = 4 * int64(g.Planner.arena.touched())
	}
	return err
}

// Release returns the results of the last run to the arena. A graph that is dropped needs it.
func (g *Graph) Release() { g.recycle() }

// errPaused stops the machine at the graph's Pause.
var errPaused = errors.New("paused")

// begin prepares a run.
func (g *Graph) begin() {
	g.machine.Reset() // a run that paused may not have been continued
	g.recycle()       // results of the run before
	for _, o := range g.all {
		o.recomputed = o.recomputable != nil && o.recomputable(g.Recompute)
	}
}

// recycle gives all buffers back.
func (g *Graph) recycle() {
	for _, o := range g.all {
		o.recycle()
	}
}

// runArena returns the arena of the run: a planner has one of its own, in which nothing is written.
func (g *Graph) runArena() *Arena {
	if g.Planner != nil {
		return &g.Planner.arena
	}
	return g.arena
}

// Value is the matrix a result holds after a run, valid until the next.
func Value(n *G.Node) Matrix { return n.Op().(*operator).out }

// operator is a gorgonia operator over matrices. The files of this package fill in what it does.
type operator struct {
	graph *Graph
	// name is unique in the graph, because gorgonia merges nodes with equal hashes: it has the
	// layer or the weight in it.
	name    string
	scalar  bool                                   // the output is one number
	pauses  bool                                   // RunToPause stops before it
	size    func(in []Matrix) (rows, cols int)     // of the output
	run     func(out Matrix, in []Matrix)          // computes the output
	inPlace int                                    // input whose buffer it may take over, from 1; 0: none
	diff    []bool                                 // inputs that are differentiated; nil: none
	back    func(in G.Nodes, dout *G.Node) G.Nodes // the inputs' gradients, nil where diff is false
	flops   func(out Matrix, in []Matrix) float64  // nil: too few to count
	// recomputable tells whether the output is dropped after the forward pass and computed again
	// when the backward pass reads it. nil: never.
	recomputable func(Recompute) bool

	from        G.Nodes     // the inputs
	args        []*operator // their operators; nil at the graph's own inputs
	uses, left  int         // readers of the output: in the graph, and still to come in this run
	forwardUses int         // readers in the forward pass
	recomputed  bool        // in this run
	in          []Matrix
	out         Matrix
	arena       *Arena // of out
	value       value
}

// value is an operator's output as gorgonia sees it. gorgonia keeps the value of every node from one run
// to the next. This one refers to no buffer, so the arena alone decides which memory is in use.
type value struct{ of *operator }

func (v *value) Shape() tensor.Shape     { return tensor.Shape{v.of.out.Rows, v.of.out.Cols} }
func (v *value) Size() int               { return len(v.of.out.Data) }
func (v *value) Data() any               { return v.of.out.Data }
func (v *value) Dtype() tensor.Dtype     { return G.Float32 }
func (v *value) Uintptr() uintptr        { return uintptr(v.Pointer()) }
func (v *value) MemSize() uintptr        { return 4 * uintptr(v.Size()) }
func (v *value) Pointer() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(v.of.out.Data)) }

// Format writes the operator's name and the shape, not the numbers.
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

// Do runs the operator. A panic means a mistake in this program. It becomes an error here, because
// gorgonia calls Do on a goroutine of its own, where no caller could recover it.
func (o *operator) Do(values ...G.Value) (v G.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("operator %s: %v", o.name, r)
		}
	}()
	if o.pauses && o.graph.pausing {
		o.graph.pausing = false
		return nil, errPaused
	}
	if stop := o.graph.Stop; stop != nil {
		if err := stop(); err != nil {
			return nil, err
		}
	}
	for i, p := range o.args {
		if p != nil {
			if p.recomputed && p.out.Data == nil {
				p.recompute()
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

// compute computes the output from o.in.
func (o *operator) compute() {
	g := o.graph
	rows, cols := 1, 1
	if !o.scalar {
		rows, cols = o.size(o.in)
	}
	if p := o.inPlace; p > 0 && o.args[p-1] != nil && o.args[p-1].left == 1 &&
		len(o.in[p-1].Data) >= rows*cols {
		o.arena = o.args[p-1].arena
		o.out = kernels.View(o.args[p-1].surrender(), rows, cols)
	} else {
		o.arena = g.runArena()
		o.out = kernels.View(o.arena.take(rows*cols), rows, cols)
	}
	flops := 0.0
	if o.flops != nil && (g.Planner != nil || g.Observe != nil) {
		flops = o.flops(o.out, o.in)
	}
	if g.Planner != nil {
		g.Planner.FLOPs += flops
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
	clear(o.in) // these views would keep alive buffers that the arena has dropped
}

// recompute computes a dropped output again, and before it the inputs that were dropped too.
func (o *operator) recompute() {
	for i, p := range o.args {
		if p.out.Data == nil {
			p.recompute()
			left := p.left
			p.left = 1 // only o reads it this time, and may take over its buffer
			defer func() { p.recycle(); p.left = left }()
		}
		o.in[i] = p.out
	}
	o.compute()
}

// read notes that one reader of the output has run. After the last one the buffer is given back; of a
// recomputed output, after the last one of the forward pass too.
func (o *operator) read() {
	o.left--
	if o.left == 0 || o.recomputed && o.left == o.uses-o.forwardUses {
		o.recycle()
	}
}

// recycle gives the output's buffer back, if it has one.
func (o *operator) recycle() {
	if o.out.Data != nil {
		o.arena.give(o.surrender())
	}
}

// surrender returns the output's buffer, which the caller then owns.
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

// InferShape returns a nominal shape: sizes are known when the graph runs.
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

// gradient adds the backward pass from n to an earlier value, given n's gradient d, and returns the
// node of that value's gradient. n follows from the earlier value by operators that continue their
// first input.
func gradient(n, earlier, d *G.Node) *G.Node {
	for n != earlier {
		o := n.Op().(*operator)
		n, d = o.from[0], o.back(o.from, d)[0]
	}
	return d
}

// SymDiff adds the operator's backward pass to the graph.
func (o *operator) SymDiff(in G.Nodes, _, dout *G.Node) (G.Nodes, error) {
	return o.back(in, dout), nil
}
