package kernels

// SwiGLU writes silu(gate) up to out, all [T, I]; silu(x) = x/(1+e^-x).
func (p *Pool) SwiGLU(out, gate, up Matrix) {
	p.rows(out.Rows, 8*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.swiglu(gate.Row(i), up.Row(i), out.Row(i))
		}
	})
}

// SwiGLUBack writes the gradients of gate and up, given d, that of SwiGLU's out; they may lie on gate and up.
func (p *Pool) SwiGLUBack(dgate, dup, d, gate, up Matrix) {
	p.rows(d.Rows, 16*d.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.swigluBack(gate.Row(i), up.Row(i), d.Row(i), dgate.Row(i), dup.Row(i))
		}
	})
}

// GELU writes gelu(x) in its tanh form (transformers' gelu_new) to out.
func (p *Pool) GELU(out, x Matrix) {
	p.rows(out.Rows, 16*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.gelu(x.Row(i), out.Row(i))
		}
	})
}

// GELUBack writes the gradient of x, given d, that of GELU's out; it may lie on x or d.
func (p *Pool) GELUBack(dx, d, x Matrix) {
	p.rows(d.Rows, 24*d.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.geluBack(x.Row(i), d.Row(i), dx.Row(i))
		}
	})
}

// CrossEntropy writes −log softmax(l)[target] of each row to nll, and turns each row of logits into its gradient,
// scale (softmax(l) − onehot(target)), unless scale is 0.
func (p *Pool) CrossEntropy(nll []float32, logits Matrix, targets []int32, scale float32) {
	p.rows(logits.Rows, 8*logits.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			l, t := logits.Row(i), int(targets[i])
			at := l[t]
			nll[i] = p.set.crossEntropy(l, t, scale) - at
		}
	})
}

// Add writes a + b to out; out may be a or b.
func (p *Pool) Add(out, a, b Matrix) {
	p.rows(out.Rows, out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.add(out.Row(i), a.Row(i), b.Row(i))
		}
	})
}

// AddRow adds the vector b to every row of x.
func (p *Pool) AddRow(x Matrix, b []float32) {
	p.rows(x.Rows, x.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.add(x.Row(i), x.Row(i), b)
		}
	})
}

func plainAdd(o, a, b []float32) {
	for i := range o {
		o[i] = a[i] + b[i]
	}
}
