package kernels

import "fmt"

// Product writes x Wᵀ to out: out[m][o] = Σ_i x[m][i] W[o][i]. x is [M, In], out [M, Out].
func (p *Pool) Product(out, x Matrix, w Weight) {
	p.Products([]Matrix{out}, x, []Weight{w})
}

// Products writes the products of one x with several weights, each to its own out. x is packed once
// for weights that are stored the same way.
func (p *Pool) Products(outs []Matrix, x Matrix, ws []Weight) {
	for len(ws) > 0 {
		n := 1
		for n < len(ws) && ws[n].InOut == ws[0].InOut &&
			ws[n].DType.computed() == ws[0].DType.computed() {
			n++
		}
		p.product(outs[:n], x, ws[:n], ws[0].InOut, false)
		for i, w := range ws[:n] {
			p.inOrder(outs[i], outs[i], w, false)
		}
		outs, ws = outs[n:], ws[n:]
	}
}

// ProductBack writes d W to out, or adds it: the gradient of Product's x,
// out[m][i] = Σ_o d[m][o] W[o][i]. d is [M, Out], out [M, In].
func (p *Pool) ProductBack(out, d Matrix, w Weight, add bool) {
	if w.Pairs != 0 {
		stored := View(grow(&p.paired, d.Rows*d.Cols), d.Rows, d.Cols)
		p.inOrder(stored, d, w, true)
		d = stored
	}
	p.product([]Matrix{out}, d, []Weight{w}, !w.InOut, add)
}

// inOrder writes the rows of x, outputs of w as they are stored, to out in order, or with back the other
// way. out may be x. It does nothing if w has no Pairs.
func (p *Pool) inOrder(out, x Matrix, w Weight, back bool) {
	if w.Pairs == 0 {
		return
	}
	half := w.Pairs / 2
	p.rows(x.Rows, 2*x.Cols, func(from, to int) {
		head := make([]float32, w.Pairs)
		for i := from; i < to; i++ {
			row, into := x.Row(i), out.Row(i)
			for c := 0; c < len(row); c += w.Pairs {
				copy(head, row[c:c+w.Pairs])
				for j := range half {
					if back {
						into[c+2*j], into[c+2*j+1] = head[j], head[j+half]
					} else {
						into[c+j], into[c+j+half] = head[2*j], head[2*j+1]
					}
				}
			}
		}
	})
}

// panelFloats is about the size of the part of a quantised weight that is turned into f32 at a time,
// for each thread: 256 KB, which stay in the second-level cache.
const panelFloats = 1 << 16

// inPanels calls f for the columns of a share: columns n0 <= n < n1 of w, whose products have k terms, go
// to the same columns of out. It calls f for groups of whole panels of a quantised weight, each group
// in f32.
func (p *Pool) inPanels(thread int, w Weight, inOut bool, out Matrix, k int, c share,
	f func(w Weight, out Matrix, n0, n1 int)) {
	if !w.DType.Quantised() {
		f(w, out, c.n0, c.n1)
		return
	}
	cols := max(1, panelFloats/(k*p.set.panelCols)) * p.set.panelCols
	for n := c.n0; n < c.n1; n += cols {
		part, from, to := w, n, min(n+cols, c.n1)
		part.DType = F32
		at, ld, rows := n*w.Stride, k, to-n // stored [n, k]
		if inOut {
			from = n / runValues * runValues
			at, ld, rows = from, (to-from+runValues-1)/runValues*runValues, k
		}
		part.Stride = ld
		buf := grow(&p.floats[thread], rows*ld)
		p.set.floats(buf, w.Data, w.DType, at, w.Stride, rows, ld)
		part.Data = FloatBytes(buf)
		f(part, out.Columns(from, out.Cols-from), n-from, to-from)
	}
}

// shareBytes is about the size of the weights in a share if the product is limited by memory. Each
// share begins with a wait for memory, so small shares would be slower.
const shareBytes = 1 << 20

// fewRows is the most rows of x that set.few takes.
const fewRows = 4

// share is a piece of a product's work: the columns n0 <= n < n1 of one weight's outputs.
type share struct{ of, n0, n1 int }

// product computes out[m][n] (+)= Σ_k x[m][k] w(k, n) for each out and w; w is stored [k, n] if inOut,
// else [n, k].
func (p *Pool) product(outs []Matrix, x Matrix, ws []Weight, inOut, add bool) {
	m, k := x.Rows, x.Cols
	for i, w := range ws {
		if n, in := w.sizes(inOut); in != k || outs[i].Cols != n || outs[i].Rows != m {
			panic(fmt.Sprintf(
				"kernels: product with %s: x is [%d, %d], out [%d, %d], want [%d, %d] and [%d, %d]",
				w.Name, m, k, outs[i].Rows, outs[i].Cols, m, in, m, n))
		}
	}
	if m == 0 {
		return
	}
	s := &p.set
	if s.product == nil {
		for i, w := range ws {
			p.rows(outs[i].Cols, m*k, func(n0, n1 int) {
				plainProduct(outs[i], x, w, inOut, n0, n1, add)
			})
		}
		return
	}
	dtype := ws[0].DType.computed()
	unpacked := m <= s.unpackedRows && !inOut
	large := max(s.sharePanels, shareBytes/max(1, dtype.Bytes(s.panelCols*k)))
	if s.few != nil && m <= fewRows {
		p.share(outs, large, false)
		p.InOrder(len(p.shares), func(thread, i int) {
			c := p.shares[i]
			p.inPanels(thread, ws[c.of], inOut, outs[c.of], k, c, func(w Weight, out Matrix, n0, n1 int) {
				s.few(x, w, inOut, n0, n1, out, add)
			})
		})
		return
	}
	if unpacked {
		p.share(outs, large, false)
	} else {
		p.share(outs, s.sharePanels, s.taper)
	}
	blocks := (m + s.blockRows - 1) / s.blockRows
	packed := grow(&p.packed, int(p.Packed(m, k)/4))
	each := max(1, 32/s.blockRows)
	p.Each((blocks+each-1)/each, func(_, i int) {
		s.pack(x, inOut, i*each, min(blocks, (i+1)*each), packed)
	})
	p.needScratch(s.scratchFloats)
	p.InOrder(len(p.shares), func(thread, i int) {
		c := p.shares[i]
		p.inPanels(thread, ws[c.of], inOut, outs[c.of], k, c, func(w Weight, out Matrix, n0, n1 int) {
			s.product(packed, m, k, w, inOut, unpacked, n0, n1, out, add, p.scratch[thread])
		})
	})
}

// Packed returns the bytes of a packed x with that many rows and columns.
func (p *Pool) Packed(rows, cols int) int64 {
	if p.set.blockFloats == nil {
		return 0
	}
	blocks := (rows + p.set.blockRows - 1) / p.set.blockRows
	return 4 * int64(blocks) * int64(p.set.blockFloats(cols))
}

// share cuts the columns of each output into shares of at most `most` panels, about equally many for
// each thread. With taper the shares get smaller towards the end, down to one panel,
// because the other threads wait for the last one.
func (p *Pool) share(outs []Matrix, most int, taper bool) {
	p.shares = p.shares[:0]
	panels := func(cols int) int { return (cols + p.set.panelCols - 1) / p.set.panelCols }
	left := 0
	for _, out := range outs {
		left += panels(out.Cols)
	}
	for of, out := range outs {
		n := panels(out.Cols)
		pieces := (n + most*p.Threads() - 1) / (most * p.Threads()) * p.Threads()
		even := (n + pieces - 1) / pieces
		for n0 := 0; n0 < out.Cols; {
			step := even
			if taper {
				step = min(even, max(1, left/(4*p.Threads())))
			}
			n1 := min(out.Cols, n0+step*p.set.panelCols)
			p.shares = append(p.shares, share{of, n0, n1})
			left -= panels(n1 - n0)
			n0 = n1
		}
	}
}

// sizes returns the columns of a product with w and the number of values summed over.
func (w Weight) sizes(inOut bool) (n, k int) {
	if inOut == w.InOut {
		return w.Out, w.In
	}
	return w.In, w.Out
}
