package kernels

import (
	"encoding/binary"
	"math"
)

// The plain loops: what each kernel means. They have no build tag and are the oracle of the faster ones.

// Float returns value i of a weight's data.
func Float(data []byte, t DType, i int) float32 {
	switch t {
	case F32:
		return math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	case BF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
	}
	return halfFloat(binary.LittleEndian.Uint16(data[2*i:]))
}

// halfFloat converts an IEEE 754 binary16.
func halfFloat(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero or subnormal: frac 2^-24
		f := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// ToFloats writes the first len(out) values of data to out.
func ToFloats(out []float32, data []byte, t DType) {
	for i := range out {
		out[i] = Float(data, t, i)
	}
}

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

// visible calls f for every key row that row i of the group sees.
func (g Group) visible(i int, f func(j int)) {
	for s := 0; s < len(g.Spans); s += 2 {
		for j := g.Spans[s]; j < g.Spans[s+1]; j++ {
			f(int(j))
		}
	}
	for j := g.Own; j <= g.Own+i; j++ {
		f(j)
	}
}

func plainAttend(a *attention, head int, u unit, s []float32) {
	for h := head * a.share(); h < (head+1)*a.share(); h++ {
		for i := u.first; i < u.first+u.n; i++ {
			r := u.Row + i
			q, o := a.q.Row(r)[h*a.Dim:(h+1)*a.Dim], a.out.Row(r)[h*a.Dim:(h+1)*a.Dim]
			n, top := 0, float32(math.Inf(-1))
			u.visible(i, func(j int) {
				s[n] = a.Scale * dot(q, a.key(h, j))
				top = max(top, s[n])
				n++
			})
			var z float64
			for t := range n {
				s[t] = float32(math.Exp(float64(s[t] - top)))
				z += float64(s[t])
			}
			clear(o)
			t := 0
			u.visible(i, func(j int) {
				axpy(s[t]/float32(z), a.value(h, j), o)
				t++
			})
			a.lse.Row(r)[h] = top + float32(math.Log(z))
		}
	}
}

func plainAttendBack(a *attention, head int, u unit, dkv Matrix, s []float32) {
	kc := head * a.Dim
	vc := kc + a.KV*a.Dim
	p, dp := s[:len(s)/2], s[len(s)/2:]
	for h := head * a.share(); h < (head+1)*a.share(); h++ {
		for i := u.first; i < u.first+u.n; i++ {
			r := u.Row + i
			q, do, lse := a.q.Row(r)[h*a.Dim:(h+1)*a.Dim], a.out.Row(r)[h*a.Dim:(h+1)*a.Dim], a.lse.Row(r)[h]
			n, d := 0, float32(0)
			u.visible(i, func(j int) {
				p[n] = float32(math.Exp(float64(a.Scale*dot(q, a.key(h, j)) - lse)))
				dp[n] = dot(do, a.value(h, j))
				d += p[n] * dp[n]
				n++
			})
			var dq []float32
			if r < a.dq.Rows {
				dq = a.dq.Row(r)[h*a.Dim : (h+1)*a.Dim]
				clear(dq)
			}
			n = 0
			u.visible(i, func(j int) {
				ds := a.Scale * p[n] * (dp[n] - d)
				if dq != nil {
					axpy(ds, a.key(h, j), dq)
				}
				if j < dkv.Rows {
					axpy(ds, q, dkv.Row(j)[kc:kc+a.Dim])
					axpy(p[n], do, dkv.Row(j)[vc:vc+a.Dim])
				}
				n++
			})
		}
	}
}

func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }

func plainSwiGLU(gate, up, out []float32) {
	for i, g := range gate {
		out[i] = g * sigmoid(g) * up[i]
	}
}

func plainSwiGLUBack(gate, up, d, dgate, dup []float32) {
	for i, g := range gate {
		s, u := sigmoid(g), up[i]
		dgate[i], dup[i] = d[i]*u*s*(1+g*(1-s)), d[i]*g*s
	}
}

const sqrt2OverPi = 0.7978845608028654

func plainGELU(x, out []float32) {
	for i, v := range x {
		v := float64(v)
		out[i] = float32(0.5 * v * (1 + math.Tanh(sqrt2OverPi*(v+0.044715*v*v*v))))
	}
}

func plainGELUBack(x, d, dx []float32) {
	for i, v := range x {
		v := float64(v)
		t := math.Tanh(sqrt2OverPi * (v + 0.044715*v*v*v))
		dx[i] = d[i] * float32(0.5*(1+t)+0.5*v*(1-t*t)*sqrt2OverPi*(1+3*0.044715*v*v))
	}
}

func plainCrossEntropy(l []float32, target int, scale float32) float32 {
	top := l[0]
	for _, v := range l {
		top = max(top, v)
	}
	var z float64
	for _, v := range l {
		z += math.Exp(float64(v - top))
	}
	if scale != 0 {
		for i, v := range l {
			l[i] = scale * float32(math.Exp(float64(v-top))/z)
		}
		l[target] -= scale
	}
	return top + float32(math.Log(z))
}
