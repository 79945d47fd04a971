package kernels

import "math"

// The plain loops define what each kernel computes. They have no build tag and are the oracle of the
// faster kernels.

// plainProduct computes the columns n0 <= n < n1 of Pool.product.
func plainProduct(out, x Matrix, w Weight, inOut bool, n0, n1 int, add bool) {
	col := make([]float32, x.Cols)
	for n := n0; n < n1; n++ {
		for k := range col {
			i := n*w.Stride + k
			if inOut {
				i = k*w.Stride + n
			}
			col[k] = Float(w.Data, w.DType, i)
		}
		for m := range x.Rows {
			s := dot(x.Row(m), col)
			if add {
				s += out.Row(m)[n]
			}
			out.Row(m)[n] = s
		}
	}
}

func dot(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func axpy(a float32, x, y []float32) {
	for i, v := range x {
		y[i] += a * v
	}
}

// visible returns the key rows that row i of the group sees through a's window, and the position of
// the first of them.
func (a *attention) visible(g Group, i int) (rows []int, first int) {
	for s := 0; s < len(g.Spans); s += 2 {
		for j := g.Spans[s]; j < g.Spans[s+1]; j++ {
			rows = append(rows, int(j))
		}
	}
	for j := g.Own; j <= g.Own+i; j++ {
		rows = append(rows, j)
	}
	if a.Window > 0 {
		first = max(0, len(rows)-a.Window)
	}
	return rows[first:], first
}

// score returns the score of head h for the key at a position, given q·k, and the derivative of the
// score by q·k.
func (a *attention) score(h, pos int, qk float32) (score, slope float32) {
	score, slope = a.Scale*qk, a.Scale
	if a.Cap != 0 {
		t := float32(math.Tanh(float64(score / a.Cap)))
		score, slope = a.Cap*t, a.Scale*(1-t*t)
	}
	if a.Bias != nil {
		score += a.Bias.row(h)[pos]
	}
	return score, slope
}

func plainAttend(a *attention, head int, u unit, s []float32) {
	for h := head * a.headsPerKey(); h < (head+1)*a.headsPerKey(); h++ {
		for i := u.first; i < u.first+u.n; i++ {
			r := u.Row + i
			q, o := a.q.Row(r)[h*a.Dim:(h+1)*a.Dim], a.out.Row(r)[h*a.Dim:(h+1)*a.Dim]
			rows, first := a.visible(u.Group, i)
			top := float32(math.Inf(-1))
			for t, j := range rows {
				s[t], _ = a.score(h, first+t, dot(q, a.key(h, j)))
				top = max(top, s[t])
			}
			var z float64
			for t := range rows {
				s[t] = float32(math.Exp(float64(s[t] - top)))
				z += float64(s[t])
			}
			clear(o)
			for t, j := range rows {
				axpy(s[t]/float32(z), a.value(h, j), o)
			}
			a.lse.Row(r)[h] = top + float32(math.Log(z))
		}
	}
}

func plainAttendBack(a *attention, head int, u unit, before Matrix, from int, s []float32) {
	kc := head * a.Dim
	vc := kc + a.KV*a.Dim
	p, dp, slope := s[:len(s)/3], s[len(s)/3:len(s)/3*2], s[len(s)/3*2:]
	for h := head * a.headsPerKey(); h < (head+1)*a.headsPerKey(); h++ {
		for i := u.first; i < u.first+u.n; i++ {
			r := u.Row + i
			q, do, lse := a.q.Row(r)[h*a.Dim:(h+1)*a.Dim], a.out.Row(r)[h*a.Dim:(h+1)*a.Dim],
				a.lse.Row(r)[h]
			rows, first := a.visible(u.Group, i)
			d := float32(0)
			for t, j := range rows {
				p[t], slope[t] = a.score(h, first+t, dot(q, a.key(h, j)))
				p[t] = float32(math.Exp(float64(p[t] - lse)))
				dp[t] = dot(do, a.value(h, j))
				d += p[t] * dp[t]
			}
			var dq []float32
			if r < a.dq.Rows {
				dq = a.dq.Row(r)[h*a.Dim : (h+1)*a.Dim]
				clear(dq)
			}
			for t, j := range rows {
				ds := slope[t] * p[t] * (dp[t] - d)
				if dq != nil {
					axpy(ds, a.key(h, j), dq)
				}
				if j < a.dkv.Rows {
					dkv := a.dkv
					if j < from {
						dkv = before
					}
					axpy(ds, q, dkv.Row(j)[kc:kc+a.Dim])
					axpy(p[t], do, dkv.Row(j)[vc:vc+a.Dim])
				}
			}
		}
	}
}

func plainSoftmaxPart(l []float32, most *float32) float64 {
	for _, v := range l {
		*most = max(*most, v)
	}
	var z float64
	for i, v := range l {
		e := math.Exp(float64(v - *most))
		l[i] = float32(e)
		z += e
	}
	return z
}
