package kernels

// Product writes x Wᵀ to out: out[m][o] = Σ_i x[m][i] W[o][i]. x is [M, In], out [M, Out].
func (p *Pool) Product(out, x Matrix, w Weight) {
	p.Products([]Matrix{out}, x, []Weight{w})
}

// Products writes the products of one x with several weights, each to its own out. Those stored the same way share the passes
// over x.
func (p *Pool) Products(outs []Matrix, x Matrix, ws []Weight) {
	for len(ws) > 0 {
		n := 1
		for n < len(ws) && ws[n].InOut == ws[0].InOut {
			n++
		}
		p.product(outs[:n], x, ws[:n], ws[0].InOut, false)
		outs, ws = outs[n:], ws[n:]
	}
}

// ProductBack writes, or with add adds, d W to out, the gradient of Product's x: out[m][i] = Σ_o d[m][o] W[o][i].
// d is [M, Out], out [M, In].
func (p *Pool) ProductBack(out, d Matrix, w Weight, add bool) {
	p.product([]Matrix{out}, d, []Weight{w}, !w.InOut, add)
}

// shareBytes is the weights of a share, about, where memory sets the pace: each share begins with a wait for it.
const shareBytes = 1 << 20

// share is a piece of a product's work: the columns n0 <= n < n1 of one weight's outputs.
type share struct{ of, n0, n1 int }

// product is out[m][n] (+)= Σ_k x[m][k] w(k, n) for each out and w, with w stored [k, n] if inOut and [n, k] if not.
func (p *Pool) product(outs []Matrix, x Matrix, ws []Weight, inOut, add bool) {
	m, k := x.Rows, x.Cols
	for i, w := range ws {
		if n, in := w.sizes(inOut); in != k || outs[i].Cols != n || outs[i].Rows != m {
			panic("kernels: product of " + w.Name + ": sizes do not fit")
		}
	}
	if m == 0 {
		return
	}
	s := &p.set
	if s.product == nil {
		for i, w := range ws {
			p.rows(outs[i].Cols, m*k, func(n0, n1 int) { plainProduct(outs[i], x, w, inOut, n0, n1, add) })
		}
		return
	}
	few := s.fewRows[ws[0].DType]
	if inOut {
		few = min(few, 4)
	}
	large := max(s.group, shareBytes/(s.nr*k*ws[0].DType.Size()))
	if m <= few {
		p.share(outs, large, false)
		p.InOrder(len(p.shares), func(_, i int) {
			c := p.shares[i]
			s.few(x, ws[c.of], inOut, c.n0, c.n1, outs[c.of], add)
		})
		return
	}
	if m <= s.once && !inOut {
		p.share(outs, large, false)
	} else {
		p.share(outs, s.group, s.taper)
	}
	blocks := (m + s.mr - 1) / s.mr
	packed := grow(&p.packed, int(p.Packed(m, k)/4))
	each := max(1, 32/s.mr)
	p.Each((blocks+each-1)/each, func(_, i int) { s.pack(x, inOut, i*each, min(blocks, (i+1)*each), packed) })
	p.rooms(s.panel)
	p.InOrder(len(p.shares), func(thread, i int) {
		c := p.shares[i]
		s.product(packed, m, k, ws[c.of], inOut, c.n0, c.n1, outs[c.of], add, p.scratch[thread])
	})
}

// Packed is the bytes in which a product with that many rows and columns on its left keeps these.
func (p *Pool) Packed(rows, cols int) int64 {
	if p.set.block == nil {
		return 0
	}
	return 4 * int64((rows+p.set.mr-1)/p.set.mr) * int64(p.set.block(cols))
}

// share cuts the columns of the outputs into groups of at most so many panels, of each output as many for every thread. With taper
// they become smaller towards the end, down to one panel, for the last one is what the other threads wait for.
func (p *Pool) share(outs []Matrix, group int, taper bool) {
	p.shares = p.shares[:0]
	panels := func(cols int) int { return (cols + p.set.nr - 1) / p.set.nr }
	left := 0
	for _, out := range outs {
		left += panels(out.Cols)
	}
	for of, out := range outs {
		n := panels(out.Cols)
		pieces := (n + group*p.Threads() - 1) / (group * p.Threads()) * p.Threads()
		most := (n + pieces - 1) / pieces
		for n0 := 0; n0 < out.Cols; {
			step := most
			if taper {
				step = min(most, max(1, left/(4*p.Threads())))
			}
			n1 := min(out.Cols, n0+step*p.set.nr)
			p.shares = append(p.shares, share{of, n0, n1})
			left -= panels(n1 - n0)
			n0 = n1
		}
	}
}

// sizes are the columns that a product with w makes and the values it sums over.
func (w Weight) sizes(inOut bool) (n, k int) {
	if inOut == w.InOut {
		return w.Out, w.In
	}
	return w.In, w.Out
}
