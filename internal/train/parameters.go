package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Reparametrisations returns the task file's names of what can be trained in place of a prompt's
// values. The result is a plain prompt all the same: the parameters are dropped when the run ends.
func Reparametrisations() []string { return []string{direct, residualMLP, lowRank} }

const (
	direct      = "off"
	residualMLP = "mlp"
	lowRank     = "low_rank"
)

// parameters are the blocks that the optimizer changes, and the soft prompt computed from them.
// Without a prompt, the blocks share the arrays of the model's param.Tensors.
type parameters struct {
	prompt    []float32 // [P, D]; nil: none
	grad      []float32 // of the prompt
	blocks    []*block
	compute   func() // fills prompt
	propagate func() // adds to the blocks' gradients, given grad
}

// block is one matrix of parameters.
type block struct {
	rows, cols   int
	values, grad []float32
	optimizer    Optimizer
}

func (b *block) row(i int) []float32     { return b.values[i*b.cols : (i+1)*b.cols] }
func (b *block) gradRow(i int) []float32 { return b.grad[i*b.cols : (i+1)*b.cols] }

// stream separates the draws of a reparametrisation from all others with the same seed.
const stream = 0x72657061 // "repa"

func newParameters(job Job) (*parameters, error) {
	p := &parameters{compute: func() {}, propagate: func() {}}
	if job.Params != nil {
		for _, x := range job.Params { // one row each: Adafactor keeps the moments of every value
			p.blocks = append(p.blocks, &block{rows: 1, cols: len(x.Values), values: x.Values,
				grad: x.Grad})
		}
	} else if err := p.reparametrise(job.Config, job.Values); err != nil {
		return p, err
	}
	for _, b := range p.blocks {
		var err error
		if b.optimizer, err = NewOptimizer(job.Optimizer, b.rows, b.cols); err != nil {
			return p, err
		}
	}
	return p, nil
}

// reparametrise makes the blocks of a soft prompt that begins at start [P, D].
func (p *parameters) reparametrise(c Config, start []float32) error {
	p.prompt, p.grad = slices.Clone(start), make([]float32, len(start))
	rows, dim := c.VirtualTokens, len(start)/c.VirtualTokens
	r := rand.New(rand.NewPCG(c.Seed, stream))
	switch c.Reparametrise {
	case "", direct:
		b := &block{rows: rows, cols: dim, values: p.prompt}
		p.blocks = []*block{b}
		p.propagate = func() { copy(b.grad, p.grad) }
	case residualMLP:
		p.residual(start, rows, dim, c.Width, r)
	case lowRank:
		p.lowRank(start, rows, dim, c.Width, r)
	default:
		return fmt.Errorf("there is no reparametrisation %q", c.Reparametrise)
	}
	for _, b := range p.blocks {
		b.grad = make([]float32, len(b.values))
	}
	p.compute()
	return nil
}

// sums returns the gradients that an objective adds to: the prompt's or the blocks'.
func (p *parameters) sums() [][]float32 {
	if p.prompt != nil {
		return [][]float32{p.grad}
	}
	var all [][]float32
	for _, b := range p.blocks {
		all = append(all, b.grad)
	}
	return all
}

// backward computes the blocks' gradients from the prompt's and returns the norm of all of them.
func (p *parameters) backward() float64 {
	if p.prompt != nil {
		for _, b := range p.blocks {
			clear(b.grad)
		}
		p.propagate()
	}
	square := 0.0
	for _, b := range p.blocks {
		n := norm(b.grad)
		square += n * n
	}
	return math.Sqrt(square)
}

// update changes the blocks by their gradients, multiplied by clip, and computes the prompt. The
// gradients predict that this lowers the loss by their product with the change of the parameters. If
// that is more than most, the changes of a soft prompt's parameters are scaled to predict most.
func (p *parameters) update(rate, clip, most float64) {
	var before [][]float32
	if p.prompt != nil {
		for _, b := range p.blocks {
			before = append(before, slices.Clone(b.values))
		}
	}
	for _, b := range p.blocks {
		if clip != 1 {
			for i := range b.grad {
				b.grad[i] *= float32(clip)
			}
		}
		b.optimizer.Step(b.values, b.grad, rate)
	}
	decrease := 0.0 // predicted
	for i, old := range before {
		b := p.blocks[i]
		for j, v := range old {
			decrease += float64(b.grad[j]) / clip * (float64(v) - float64(b.values[j]))
		}
	}
	if decrease > most {
		for i, old := range before {
			b := p.blocks[i]
			for j, v := range old {
				b.values[j] = v + float32(most/decrease)*(b.values[j]-v)
			}
		}
	}
	p.compute()
}

// finite tells whether all moments of the optimizers are finite.
func (p *parameters) finite() bool {
	for _, b := range p.blocks {
		_, all := b.optimizer.moments()
		for _, m := range all {
			if slices.ContainsFunc(m, func(x float64) bool { return !finite(x) }) {
				return false
			}
		}
	}
	return true
}

// residual makes each row e + U relu(W e + b) + c (Razdaibiedina et al. 2023). U and c start at
// zero, so that the prompt starts at the values of start.
func (p *parameters) residual(start []float32, rows, dim, width int, r *rand.Rand) {
	e := &block{rows: rows, cols: dim, values: slices.Clone(start)}
	w, b := &block{rows: width, cols: dim}, &block{rows: 1, cols: width}
	u := &block{rows: dim, cols: width, values: make([]float32, dim*width)}
	c := &block{rows: 1, cols: dim, values: make([]float32, dim)}
	for _, x := range []*block{w, b} { // drawn as in torch's Linear
		for range x.rows * x.cols {
			x.values = append(x.values, float32((2*r.Float64()-1)/math.Sqrt(float64(dim))))
		}
	}
	p.blocks = []*block{e, w, b, u, c}
	hidden := make([]float32, rows*width)
	p.compute = func() {
		for i := range rows {
			h := hidden[i*width : (i+1)*width]
			for k := range h {
				h[k] = max(0, dot(w.row(k), e.row(i))+b.values[k])
			}
			for j := range dim {
				p.prompt[i*dim+j] = e.values[i*dim+j] + dot(u.row(j), h) + c.values[j]
			}
		}
	}
	p.propagate = func() {
		for i := range rows {
			h, d := hidden[i*width:(i+1)*width], p.grad[i*dim:(i+1)*dim]
			dh := make([]float32, width)
			for j, v := range d {
				axpy(u.gradRow(j), v, h)
				axpy(dh, v, u.row(j))
			}
			axpy(c.grad, 1, d)
			axpy(e.gradRow(i), 1, d)
			for k, v := range dh {
				if h[k] > 0 {
					b.grad[k] += v
					axpy(w.gradRow(k), v, e.row(i))
					axpy(e.gradRow(i), v, w.row(k))
				}
			}
		}
	}
}

// lowRank makes the prompt start + (Z A) s + b (ULPT, Wu et al. 2025). A [width, D] is random and
// fixed; Z [P, width], the scale s and the shift b are trained. Z and b start at zero.
func (p *parameters) lowRank(start []float32, rows, dim, width int, r *rand.Rand) {
	a := make([]float32, width*dim)
	for i := range a {
		a[i] = float32(r.NormFloat64() / math.Sqrt(float64(width)))
	}
	z := &block{rows: rows, cols: width, values: make([]float32, rows*width)}
	s := &block{rows: 1, cols: dim, values: make([]float32, dim)}
	b := &block{rows: 1, cols: dim, values: make([]float32, dim)}
	for j := range s.values {
		s.values[j] = 1
	}
	p.blocks = []*block{z, s, b}
	product := make([]float32, rows*dim)
	p.compute = func() {
		clear(product)
		for i := range rows {
			row := product[i*dim : (i+1)*dim]
			for k, v := range z.row(i) {
				axpy(row, v, a[k*dim:(k+1)*dim])
			}
			for j, v := range row {
				p.prompt[i*dim+j] = start[i*dim+j] + v*s.values[j] + b.values[j]
			}
		}
	}
	p.propagate = func() {
		scaled := make([]float32, dim)
		for i := range rows {
			d := p.grad[i*dim : (i+1)*dim]
			for j, v := range d {
				scaled[j] = v * s.values[j]
				s.grad[j] += v * product[i*dim+j]
			}
			axpy(b.grad, 1, d)
			for k := range width {
				z.gradRow(i)[k] = dot(scaled, a[k*dim:(k+1)*dim])
			}
		}
	}
}

func dot(a, b []float32) float32 {
	var s float32
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// axpy adds c x to y.
func axpy(y []float32, c float32, x []float32) {
	for i, v := range x {
		y[i] += c * v
	}
}
