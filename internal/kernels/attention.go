package kernels

// Heads is the shape of an attention: Q query heads share KV key/value heads in equal parts (grouped-query attention).
type Heads struct {
	Q, KV, Dim int
	Scale      float32 // what q·k is multiplied by, 1/√Dim as a rule
}

// QCols and KVCols are the columns of the query matrix and of the key/value matrix (all keys, then all values).
func (h Heads) QCols() int  { return h.Q * h.Dim }
func (h Heads) KVCols() int { return 2 * h.KV * h.Dim }

// Group is N query rows from Row on that follow each other in a text: all of them see the key rows of Spans
// (from, to, from, to, …), and the i-th of them sees the key rows Own … Own+i as well.
type Group struct {
	Row, N int
	Own    int
	Spans  []int32
}

// seen is the number of key rows that the last row of the group sees.
func (g Group) seen() int {
	n := g.N
	for i := 0; i < len(g.Spans); i += 2 {
		n += int(g.Spans[i+1] - g.Spans[i])
	}
	return n
}

type attention struct {
	Heads
	q, kv, out Matrix // out is, on the way back, its gradient
	lse        Matrix // [rows of q, Q], the log of each softmax's denominator
	dq, dkv    Matrix // the way back's results
}

// Attend writes softmax(scale q kᵀ) v for the rows of the groups to out [rows, QCols], and to lse [rows, Q] what the way
// back needs of it. q is [rows, QCols], kv [key rows, KVCols].
func (p *Pool) Attend(out, lse, q, kv Matrix, heads Heads, groups []Group) {
	a := &attention{Heads: heads, q: q, kv: kv, out: out, lse: lse}
	seen := longest(groups)
	p.Each(heads.Q*len(groups), func(thread, i int) {
		p.set.attend(a, i%heads.Q, groups[i/heads.Q], p.room(thread, seen))
	})
}

// AttendBack writes the gradients of q and kv to dq and dkv, given dout, the gradient of Attend's out. dq and dkv may have
// fewer rows than q and kv: the gradients of the other rows are left out.
func (p *Pool) AttendBack(dq, dkv, dout, lse, q, kv Matrix, heads Heads, groups []Group) {
	a := &attention{Heads: heads, q: q, kv: kv, out: dout, lse: lse, dq: dq, dkv: dkv}
	seen := longest(groups)
	for i := range dkv.Rows {
		clear(dkv.Row(i))
	}
	p.Each(heads.KV, func(thread, kvHead int) { // a key head's gradient has one writer, whatever the number of threads
		each := heads.Q / heads.KV
		for h := kvHead * each; h < (kvHead+1)*each; h++ {
			for _, g := range groups {
				p.set.attendBack(a, h, g, p.room(thread, 2*seen))
			}
		}
	})
}

func longest(groups []Group) int {
	n := 0
	for _, g := range groups {
		n = max(n, g.seen())
	}
	return n
}

// key and value are row j's key and value for query head h.
func (a *attention) key(h, j int) []float32 {
	c := h / (a.Q / a.KV) * a.Dim
	return a.kv.Row(j)[c : c+a.Dim]
}

func (a *attention) value(h, j int) []float32 {
	c := (a.KV + h/(a.Q/a.KV)) * a.Dim
	return a.kv.Row(j)[c : c+a.Dim]
}
