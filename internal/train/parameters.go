package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Reparametrisations lists what can be trained in place of the prompt's values, by the names of the task file. The prompt is plain
// values all the same: what it was made of is dropped when the run ends.
func Reparametrisations() []string { return []string{direct, residualMLP, lowRank} }

const (
	direct      = "off"
	residualMLP = "mlp"
	lowRank     = "low_rank"
)

// parameters are what the optimizer changes, and the values [P, D] that come of them.
type parameters struct {
	values []float32
	blocks []*block
	make   func()            // fills values
	back   func(d []float32) // adds the blocks' gradients, given d, that of values
}

// block is one matrix of parameters.
type block struct {
	rows, cols   int
	values, grad []float32
	opt          Optimizer
}

func (b *block) row(i int) []float32     { return b.values[i*b.cols : (i+1)*b.cols] }
func (b *block) gradRow(i int) []float32 { return b.grad[i*b.cols : (i+1)*b.cols] }

// stream keeps the draws of a reparametrisation apart from all others that use the seed.
const stream = 0x72657061 // "repa"

func newParameters(c Config, start []float32) (*parameters, error) {
	p := &parameters{values: slices.Clone(start)}
	rows, dim := c.VirtualTokens, len(start)/c.VirtualTokens
	r := rand.New(rand.NewPCG(c.Seed, stream))
	switch c.Reparametrise {
	case "", direct:
		p.blocks = []*block{{rows: rows, cols: dim, values: p.values}}
		p.make = func() {}
		p.back = func(d []float32) { copy(p.blocks[0].grad, d) }
	case residualMLP:
		p.residual(start, rows, dim, c.Width, r)
	case lowRank:
		p.lowRank(start, rows, dim, c.Width, r)
	default:
		return p, fmt.Errorf("there is no reparametrisation %q", c.Reparametrise)
	}
	for _, b := range p.blocks {
		b.grad = make([]float32, len(b.values))
	}
	return p, p.optimize(c.Optimizer)
}

// optimize gives each block its optimizer.
func (p *parameters) optimize(c OptimizerConfig) (err error) {
	for _, b := range p.blocks {
		if b.opt, err = NewOptimizer(c, b.rows, b.cols); err != nil {
			return err
		}
	}
	return nil
}

// residual is e + U relu(W e + b) + c for each row e (Razdaibiedina et al. 2023), with U and c zero in the beginning: the prompt begins
// where it would without.
func (p *parameters) residual(start []float32, rows, dim, width int, r *rand.Rand) {
	e := &block{rows: rows, cols: dim, values: slices.Clone(start)}
	w, b := &block{rows: width, cols: dim}, &block{rows: 1, cols: width}
	u, c := &block{rows: dim, cols: width, values: make([]float32, dim*width)}, &block{rows: 1, cols: dim, values: make([]float32, dim)}
	for _, x := range []*block{w, b} { // as torch's Linear begins
		for range x.rows * x.cols {
			x.values = append(x.values, float32((2*r.Float64()-1)/math.Sqrt(float64(dim))))
		}
	}
	p.blocks = []*block{e, w, b, u, c}
	hidden := make([]float32, rows*width)
	p.make = func() {
		for i := range rows {
			h := hidden[i*width : (i+1)*width]
			for k := range h {
				h[k] = max(0, dot(w.row(k), e.row(i))+b.values[k])
			}
			for j := range dim {
				p.values[i*dim+j] = e.values[i*dim+j] + dot(u.row(j), h) + c.values[j]
			}
		}
	}
	p.back = func(d []float32) {
		for i := range rows {
			h, d := hidden[i*width:(i+1)*width], d[i*dim:(i+1)*dim]
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
	p.make()
}

// lowRank is start + (Z A) s + b (ULPT, Wu et al. 2025): A [width, D] is random and stays, Z [P, width], the scale s and the shift b are
// trained. Z and b are zero in the beginning.
func (p *parameters) lowRank(start []float32, rows, dim, width int, r *rand.Rand) {
	a := make([]float32, width*dim)
	for i := range a {
		a[i] = float32(r.NormFloat64() / math.Sqrt(float64(width)))
	}
	z := &block{rows: rows, cols: width, values: make([]float32, rows*width)}
	s, b := &block{rows: 1, cols: dim, values: make([]float32, dim)}, &block{rows: 1, cols: dim, values: make([]float32, dim)}
	for j := range s.values {
		s.values[j] = 1
	}
	p.blocks = []*block{z, s, b}
	product := make([]float32, rows*dim)
	p.make = func() {
		clear(product)
		for i := range rows {
			row := product[i*dim : (i+1)*dim]
			for k, v := range z.row(i) {
				axpy(row, v, a[k*dim:(k+1)*dim])
			}
			for j, v := range row {
				p.values[i*dim+j] = start[i*dim+j] + v*s.values[j] + b.values[j]
			}
		}
	}
	p.back = func(d []float32) {
		scaled := make([]float32, dim)
		for i := range rows {
			d := d[i*dim : (i+1)*dim]
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
	p.make()
}

// gradient takes the gradient of the values and returns the length of that of all parameters.
func (p *parameters) gradient(d []float32) float64 {
	for _, b := range p.blocks {
		clear(b.grad)
	}
	p.back(d)
	return p.length()
}

// length is that of the gradient of all parameters.
func (p *parameters) length() float64 {
	square := 0.0
	for _, b := range p.blocks {
		n := norm(b.grad)
		square += n * n
	}
	return math.Sqrt(square)
}

// step changes the parameters by their gradient, times shrink.
func (p *parameters) step(rate, shrink float64) {
	for _, b := range p.blocks {
		if shrink != 1 {
			for i := range b.grad {
				b.grad[i] *= float32(shrink)
			}
		}
		b.opt.Step(b.values, b.grad, rate)
	}
	p.make()
}

// sound is whether all that the optimizers remember are numbers.
func (p *parameters) sound() bool {
	for _, b := range p.blocks {
		_, all := b.opt.moments()
		for _, m := range all {
			for _, x := range m {
				if !finite(x) {
					return false
				}
			}
		}
	}
	return true
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
