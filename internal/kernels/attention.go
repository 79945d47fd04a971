package kernels

import "math"

// Heads is the shape of an attention: Q query heads share KV key/value heads in equal parts (grouped-query attention).
type Heads struct {
	Q, KV, Dim int
	Scale      float32 // what q·k is multiplied by, 1/√Dim as a rule
	Window     int     // a row sees itself and so many less one before it; 0: all before it
	Cap        float32 // scores s become Cap tanh(s / Cap) (Gemma 2); 0: they stay
	Bias       *ALiBi  // is added to scores; nil: nothing is
}

// ALiBi is attention with linear biases (Press et al. 2022): a key's position times a slope of the head is added to its score. Its
// table grows with the positions that are asked for.
type ALiBi struct {
	Slopes []float32               // of each query head
	Round  func(x float32) float32 // what is done to positions and biases; nil: nothing
	Scale  float32                 // what biases are then multiplied by; 0: nothing

	table []float32 // [heads, positions]
}

// NewALiBi has the slopes of Press et al. for a number of heads: 2^(-8/n), 2^(-16/n), … for a power of two n; of other numbers the
// slopes of the power of two below come first, then every second one of twice that.
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

// reach grows the table to so many positions and the vector that kernels read behind them.
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

// positions is how many of each head's biases there are.
func (a *ALiBi) positions() int { return len(a.table) / len(a.Slopes) }

// row is the biases of a head for the positions that have been reached.
func (a *ALiBi) row(head int) []float32 { return a.table[head*a.positions():] }

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

// Pairs is the number of rows and keys that see each other.
func (g Group) Pairs() int {
	n := g.N * (g.N + 1) / 2
	for i := 0; i < len(g.Spans); i += 2 {
		n += g.N * int(g.Spans[i+1]-g.Spans[i])
	}
	return n
}

// unit is a piece of work: the rows first … first+n-1 of a group, for one key head.
type unit struct {
	Group
	first, n int
}

// unitRows is how many rows a unit has at most, for which keys and values are turned once.
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

// row is the unit's first row.
func (u unit) row() int { return u.Row + u.first }

// seen is the number of key rows that the last row of the unit sees.
func (u unit) seen() int {
	n := u.first + u.n
	for i := 0; i < len(u.Spans); i += 2 {
		n += int(u.Spans[i+1] - u.Spans[i])
	}
	return n
}

// keysBefore is one more than the last key row before from that the unit sees, 0 if there is none.
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
	q, kv, out Matrix // kv may be by head; out is, on the way back, its gradient
	lse        Matrix // [rows of q, Q], the log of each softmax's denominator
	dq, dkv    Matrix // the way back's results
}

// share is the number of query heads that share a key head.
func (h Heads) share() int { return h.Q / h.KV }

// room is the floats of scratch that units need, with so many turned copies of keys and tables of scores.
func (a *attention) room(units []unit, copies int) int {
	n := 0
	for _, u := range units {
		queries := a.part(u) * a.share()
		n = max(n, 3*queries+(u.seen()+64)*(2+max(a.share(), copies*(a.Dim+queries))))
	}
	return n
}

// part is how many rows of a unit are worked on at a time: of those that see few keys all, of others so few that the scores of all
// their queries stay in the second-level cache. Parts are about as large as each other.
func (a *attention) part(u unit) int {
	rows := max(1, max(48, 1<<14/u.seen())/a.share())
	parts := (u.n + rows - 1) / rows
	return (u.n + parts - 1) / parts
}

// reach makes the biases that units need.
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

// Attend writes softmax(scale q kᵀ) v for the rows of the groups to out [rows, QCols], and to lse [rows, Q] what the way
// back needs of it. q is [rows, QCols], kv [key rows, KVCols].
func (p *Pool) Attend(out, lse, q, kv Matrix, heads Heads, groups []Group) {
	a, list := &attention{Heads: heads, q: q, kv: kv, out: out, lse: lse}, units(groups)
	a.reach(list)
	p.rooms(a.room(list, 1))
	p.Each(heads.KV*len(list), func(thread, i int) {
		p.set.attend(a, i%heads.KV, list[i/heads.KV], p.scratch[thread])
	})
}

// AttendBack writes the gradients of q and kv to dq and dkv, given dout, the gradient of Attend's out. dq and dkv may have
// fewer rows than q and kv: the gradients of the other rows are left out.
func (p *Pool) AttendBack(dq, dkv, dout, lse, q, kv Matrix, heads Heads, groups []Group) {
	a, list := &attention{Heads: heads, q: q, kv: kv, out: dout, lse: lse, dq: dq, dkv: dkv}, units(groups)
	a.reach(list)
	p.rooms(a.room(list, 2))
	p.rows(dkv.Rows, dkv.Cols, func(from, to int) {
		for r := from; r < to; r++ {
			clear(dkv.Row(r))
		}
	})
	// Units share keys: a few parts of the list, as many whatever the threads, add to the rows that no part before them sees, and
	// to a sum of their own for the others.
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

// sum is a matrix of the pool's own for the i-th of several sums of so many rows like those of m, all zero.
func (p *Pool) sum(i, rows int, m Matrix) Matrix {
	if i == len(p.sums) {
		p.sums = append(p.sums, nil)
	}
	data := grow(&p.sums[i], rows*m.Stride)
	clear(data)
	return Matrix{Rows: rows, Cols: m.Cols, Stride: m.Stride, Data: data}
}

// split cuts a list into at most n parts of about the same work, which is the pairs of rows and keys.
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

// head is the rows of keys and values of key head c, and the columns where its keys and its values begin.
func (a *attention) head(c int) (kv Matrix, key, value int) {
	if a.kv.Cols == a.KVCols() {
		return a.kv, c * a.Dim, (a.KV + c) * a.Dim
	}
	return a.kv.OfHead(c, a.KV), 0, a.Dim
}

// OfHead is the part of key head c of so many in keys and values by head.
func (m Matrix) OfHead(c, heads int) Matrix {
	rows := m.Rows / heads
	return Matrix{Rows: rows, Cols: m.Cols, Stride: m.Stride, Data: m.Data[c*rows*m.Stride:]}
}

// key and value are row j's key and value for query head h.
func (a *attention) key(h, j int) []float32 {
	kv, c, _ := a.head(h / a.share())
	return kv.Row(j)[c : c+a.Dim]
}

func (a *attention) value(h, j int) []float32 {
	kv, _, c := a.head(h / a.share())
	return kv.Row(j)[c : c+a.Dim]
}
