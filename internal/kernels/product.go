package kernels

// Product writes, or with add adds, x Wᵀ to out: out[m][o] = Σ_i x[m][i] W[o][i].
// x is [M, In], out [M, Out].
func (p *Pool) Product(out, x Matrix, w Weight, add bool) {
	p.product(out, x, w, w.InOut, w.Out, w.In, add)
}

// ProductBack writes or adds d W, the gradient of Product's x: out[m][i] = Σ_o d[m][o] W[o][i].
// d is [M, Out], out [M, In].
func (p *Pool) ProductBack(out, d Matrix, w Weight, add bool) {
	p.product(out, d, w, !w.InOut, w.In, w.Out, add)
}

// product is out[m][n] (+)= Σ_k x[m][k] w(k, n), with w stored [k, n] if inOut and [n, k] if not.
func (p *Pool) product(out, x Matrix, w Weight, inOut bool, n, k int, add bool) {
	if x.Cols != k || out.Cols != n || x.Rows != out.Rows {
		panic("kernels: product of " + w.Name + ": sizes do not fit")
	}
	m := x.Rows
	if m == 0 {
		return
	}
	s := &p.set
	if s.product == nil {
		p.rows(n, m*k, func(n0, n1 int) { plainProduct(out, x, w, inOut, n0, n1, add) })
		return
	}
	// Shares of work are groups of panels, as many for every thread.
	panels := (n + s.nr - 1) / s.nr
	pieces := (panels + s.group*p.Threads() - 1) / (s.group * p.Threads()) * p.Threads()
	step := (panels + pieces - 1) / pieces * s.nr
	pieces = (n + step - 1) / step
	if m <= 4 && !inOut {
		p.Each(pieces, func(_, i int) { s.few(x, w, i*step, min(n, (i+1)*step), out, add) })
		return
	}
	blocks := (m + s.mr - 1) / s.mr
	if need := blocks * s.block(k); cap(p.packed) < need {
		p.packed = Floats(need)
	}
	share := max(1, 32/s.mr)
	p.Each((blocks+share-1)/share, func(_, i int) { s.pack(x, inOut, i*share, min(blocks, (i+1)*share), p.packed) })
	p.Each(pieces, func(thread, i int) {
		s.product(p.packed, m, k, w, inOut, i*step, min(n, (i+1)*step), (i+p.Threads())*step, out, add, p.room(thread, s.panel))
	})
}
