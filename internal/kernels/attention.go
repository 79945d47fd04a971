package kernels

import "math"

// Heads is the shape of an attention: Q query heads share KV key/value heads in equal parts
// (grouped-query attention).
type Heads struct {
	Q, KV, Dim int
	Scale      float32 // multiplies q·k; usually 1/√Dim
	Window     int     // a row sees this many keys at most, its own included; 0: all
	Cap        float32 // scores s become Cap tanh(s / Cap) (Gemma 2); 0: unchanged
	Bias       *ALiBi  // is added to scores; nil: none
}

// ALiBi is attention with linear biases (Press et al. 2022): a key's position times a slope of the
// head is added to its score. Its table grows when a kernel needs more positions.
type ALiBi struct {
	Slopes []float32               // of each query head
	Round  func(x float32) float32 // rounds positions and biases; nil: they are not rounded
	Scale  float32                 // multiplies the rounded biases; 0: as 1

	table []float32 // [heads, positions]
}

// NewALiBi returns the slopes of Press et al. for a number of heads: 2^(-8/n), 2^(-16/n), … if n is a
// power of two. For other numbers, the slopes of the next lower power of two come first, then every
// second slope of twice that power.
func NewALiBi(heads int) *ALiBi {
	a := &ALiBi{}
	n := 1 << int(math.Log2(float64(heads)))
	for i := range heads {
		power := -8 * float64(i+1) / float64(n)
		if i >= n {
			power = -8 * float64(2*(i-n)+1) / float64(2*n)
		}
		a.Slopes = append(a.Slopes, float32(math.Pow(2, power)))
	}
	return a
}

// reach grows the table to that many positions and the vector that kernels read behind them.
func (a *ALiBi) reach(positions int) {
	const behind = 32
	if positions+behind <= a.positions() {
		return
	}
	n := 2 * (positions + behind)
	round, scale := a.Round, a.Scale
	if scale == 0 {
		scale = 1
	}
	if round == nil {
		round = func(x float32) float32 { return x }
	}
	a.table = make([]float32, len(a.Slopes)*n)
	for i := range a.table {
		a.table[i] = scale * round(a.Slopes[i/n]*round(float32(i%n)))
	}
}

// positions returns the number of positions in the table.
func (a *ALiBi) positions() int { return len(a.table) / len(a.Slopes) }

// row returns the biases of a head and of those after it, positions() each.
func (a *ALiBi) row(head int) []float32 { return a.table[head*a.positions():] }

// QCols returns the columns of the query matrix.
func (h Heads) QCols() int { return h.Q * h.Dim }

// KVCols returns the columns of the key/value matrix: all keys, then all values.
func (h Heads) KVCols() int { return 2 * h.KV * h.Dim }

// Group is N query rows from Row on that follow each other in a text. All of them see the key rows of
// Spans (from, to, from, to, …). Row i of them also sees the key rows Own to Own+i.
type Group struct {
	Row, N int
	Own    int
	Spans  []int32
}

// Pairs returns the number of pairs of a query row and a key row that it sees.
func (g Group) Pairs() int {
	n := g.N * (g.N + 1) / 2
	for i := 0; i < len(g.Spans); i += 2 {
		n += g.N * int(g.Spans[i+1]-g.Spans[i])
	}
	return n
}

// unit is a piece of work: the rows first to first+n-1 of a group, for one key head.
type unit struct {
	Group
	first, n int
}

// unitRows is the number of rows of a unit, at most. Keys and values are transposed once for them.
const unitRows = 48

func units(groups []Group) []unit {
	var list []unit
	for _, g := range groups {
		for first := 0; first < g.N; first += unitRows {
			list = append(list, unit{g, first, min(unitRows, g.N-first)})
		}
	}
	return list
}

// row returns the unit's first row.
func (u unit) row() int { return u.Row + u.first }

// seen returns the number of key rows that the last row of the unit sees without a window.
func (u unit) seen() int {
	n := u.first + u.n
	for i := 0; i < len(u.Spans); i += 2 {
		n += int(u.Spans[i+1] - u.Spans[i])
	}
	return n
}

// keysBefore returns the last key row before from that the unit sees, plus one; 0 if it sees none.
func (u unit) keysBefore(from int) int {
	last := min(u.Own+u.first+u.n, from)
	if u.Own >= from {
		last = 0
	}
	for i := 0; i < len(u.Spans); i += 2 {
		if int(u.Spans[i]) < from {
			last = max(last, min(int(u.Spans[i+1]), from))
		}
	}
	return last
}

type attention struct {
	Heads
	q, kv, out Matrix // kv may be by head; out is its own gradient in AttendBack
	lse        Matrix // [rows of q, Q], the log of each softmax's denominator
	dq, dkv    Matrix // results of AttendBack
}

// headsPerKey returns the number of query heads that share a key head.
func (h Heads) headsPerKey() int { return h.Q / h.KV }

// scratch returns how many floats of scratch the largest unit needs. copies is the number of transposed
// keys and score tables that are kept: 1 forward, 2 backward.
func (a *attention) scratch(units []unit, copies int) int {
	n := 0
	for _, u := range units {
		queries := a.rowsAtOnce(u) * a.headsPerKey()
		n = max(n, 3*queries+(u.seen()+64)*(2+max(a.headsPerKey(), copies*(a.Dim+queries))))
	}
	return n
}

// rowsAtOnce returns how many rows of a unit are computed at a time: all of them if they see few keys,
// otherwise as many as keep the scores of all their queries in the second-level cache. The parts of
// a unit have about the same size.
func (a *attention) rowsAtOnce(u unit) int {
	rows := max(1, max(48, 1<<14/u.seen())/a.headsPerKey())
	parts := (u.n + rows - 1) / rows
	return (u.n + parts - 1) / parts
}

// reach grows the table of biases to what units need.
func (a *attention) reach(units []unit) {
	if a.Bias == nil {
		return
	}
	n := 0
	for _, u := range units {
		n = max(n, u.seen())
	}
	a.Bias.reach(n)
}

// Attend writes softmax(scale q kᵀ) v for the rows of the groups to out [rows, QCols], and the log of
// each softmax's denominator, which AttendBack needs, to lse [rows, Q]. q is [rows, QCols], kv
// [key rows, KVCols].
func (p *Pool) Attend(out, lse, q, kv Matrix, heads Heads, groups []Group) {
	a := &attention{Heads: heads, q: q, kv: kv, out: out, lse: lse}
	list := units(groups)
	a.reach(list)
	p.needScratch(a.scratch(list, 1))
	p.Each(heads.KV*len(list), func(thread, i int) {
		p.set.attend(a, i%heads.KV, list[i/heads.KV], p.scratch[thread])
	})
}

// AttendBack writes the gradients of q and kv to dq and dkv, given dout, the gradient of Attend's
// out. dq and dkv may have fewer rows than q and kv: the gradients of the other rows are not
// computed.
func (p *Pool) AttendBack(dq, dkv, dout, lse, q, kv Matrix, heads Heads, groups []Group) {
	a := &attention{Heads: heads, q: q, kv: kv, out: dout, lse: lse, dq: dq, dkv: dkv}
	list := units(groups)
	a.reach(list)
	p.needScratch(a.scratch(list, 2))
	p.rows(dkv.Rows, dkv.Cols, func(from, to int) {
		for r := from; r < to; r++ {
			clear(dkv.Row(r))
		}
	})
	// Units share keys, so their gradients must be added in a fixed order. The list is cut into a few
	// parts, whose number does not depend on the threads. Each adds to dkv for key rows that no part
	// before it sees, and to a sum of its own for the others.
	parts := split(list, (12+heads.KV-1)/heads.KV)
	sums, from, next := make([]Matrix, len(parts)), make([]int, len(parts)), 0
	for i, part := range parts {
		from[i] = next
		rows := 0
		for _, u := range part {
			rows = max(rows, u.keysBefore(from[i]))
			next = max(next, u.keysBefore(math.MaxInt))
		}
		sums[i] = p.sum(i, min(rows, dkv.Rows), dkv)
	}
	p.Each(heads.KV*len(parts), func(thread, i int) {
		for _, u := range parts[i/heads.KV] {
			p.set.attendBack(a, i%heads.KV, u, sums[i/heads.KV], from[i/heads.KV], p.scratch[thread])
		}
	})
	for _, s := range sums {
		p.Add(dkv.Top(s.Rows), dkv.Top(s.Rows), s)
	}
}

// sum returns a [rows, m.Cols] matrix of zeros in memory that the pool keeps. Matrices with different i
// can be used at the same time.
func (p *Pool) sum(i, rows int, m Matrix) Matrix {
	if i == len(p.sums) {
		p.sums = append(p.sums, nil)
	}
	data := grow(&p.sums[i], rows*m.Stride)
	clear(data)
	return Matrix{Rows: rows, Cols: m.Cols, Stride: m.Stride, Data: data}
}

// split cuts a list into at most n parts with about as many pairs of rows and keys each.
func split(list []unit, n int) [][]unit {
	all := 0
	for _, u := range list {
		all += u.n * u.seen()
	}
	var parts [][]unit
	from, done := 0, 0
	for i, u := range list {
		if done += u.n * u.seen(); done*n >= all*(len(parts)+1) || i == len(list)-1 {
			parts = append(parts, list[from:i+1])
			from = i + 1
		}
	}
	return parts
}

// head returns the matrix that holds key head c, and the columns where its keys and values begin.
func (a *attention) head(c int) (kv Matrix, key, value int) {
	if a.kv.Cols == a.KVCols() {
		return a.kv, c * a.Dim, (a.KV + c) * a.Dim
	}
	return a.kv.OfHead(c, a.KV), 0, a.Dim
}

// OfHead returns the rows of key head c in a matrix of keys and values stored head by head.
func (m Matrix) OfHead(c, heads int) Matrix {
	rows := m.Rows / heads
	return Matrix{Rows: rows, Cols: m.Cols, Stride: m.Stride, Data: m.Data[c*rows*m.Stride:]}
}

// key returns row j's key for query head h.
func (a *attention) key(h, j int) []float32 {
	kv, c, _ := a.head(h / a.headsPerKey())
	return kv.Row(j)[c : c+a.Dim]
}

// value returns row j's value for query head h.
func (a *attention) value(h, j int) []float32 {
	kv, _, c := a.head(h / a.headsPerKey())
	return kv.Row(j)[c : c+a.Dim]
}
