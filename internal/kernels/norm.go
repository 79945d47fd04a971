package kernels

import "math"

// RMSNorm writes x w / √(mean(x²) + eps) to out [T, D], row by row.
func (p *Pool) RMSNorm(out, x Matrix, w []float32, eps float32) {
	p.rows(out.Rows, 2*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.rmsNorm(out.Row(i), x.Row(i), w, eps)
		}
	})
}

func plainRMSNorm(o, x, w []float32, eps float32) {
	r := rms(x, eps)
	for j := range o {
		o[j] = w[j] * (x[j] * r)
	}
}

// RMSNormBack writes the gradient of x, given d, the gradient of RMSNorm's out:
// dx = r (w d − x̂ mean(w d x̂)), x̂ = r x, r = 1/√(mean(x²) + eps). dx may be d.
func (p *Pool) RMSNormBack(dx, d, x Matrix, w []float32, eps float32) {
	p.rows(dx.Rows, 4*dx.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.rmsNormBack(dx.Row(i), d.Row(i), x.Row(i), w, eps)
		}
	})
}

func plainRMSNormBack(o, d, x, w []float32, eps float32) {
	r := rms(x, eps)
	var s float64
	for j := range x {
		s += float64(w[j] * d[j] * x[j])
	}
	m := float32(s) / float32(len(x)) * r * r
	for j := range o {
		o[j] = r * (w[j]*d[j] - x[j]*m)
	}
}

// rms returns 1/√(mean(x²) + eps).
func rms(x []float32, eps float32) float32 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return float32(1 / math.Sqrt(s/float64(len(x))+float64(eps)))
}

// LayerNorm writes (x − mean) / √(variance + eps) · w + b to out [T, D], row by row.
func (p *Pool) LayerNorm(out, x Matrix, w, b []float32, eps float32) {
	p.rows(out.Rows, 3*out.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.layerNorm(out.Row(i), x.Row(i), w, b, eps)
		}
	})
}

func plainLayerNorm(o, x, w, b []float32, eps float32) {
	mean, r := moments(x, eps)
	for j := range o {
		o[j] = (x[j]-mean)*r*w[j] + b[j]
	}
}

// LayerNormBack writes the gradient of x, given d, the gradient of LayerNorm's out:
// dx = r (w d − mean(w d) − x̂ mean(w d x̂)), x̂ = r (x − mean), r = 1/√(variance + eps).
// dx may be d.
func (p *Pool) LayerNormBack(dx, d, x Matrix, w []float32, eps float32) {
	p.rows(dx.Rows, 5*dx.Cols, func(from, to int) {
		for i := from; i < to; i++ {
			p.set.layerNormBack(dx.Row(i), d.Row(i), x.Row(i), w, eps)
		}
	})
}

func plainLayerNormBack(o, d, x, w []float32, eps float32) {
	mean, r := moments(x, eps)
	var s, t float64
	for j := range x {
		s += float64(w[j] * d[j])
		t += float64(w[j] * d[j] * (x[j] - mean) * r)
	}
	n := float32(len(x))
	ms, mt := float32(s)/n, float32(t)/n
	for j := range o {
		o[j] = r * (w[j]*d[j] - ms - (x[j]-mean)*r*mt)
	}
}

// moments returns the mean of x and 1/√(variance + eps).
func moments(x []float32, eps float32) (mean, r float32) {
	var s, q float64
	for _, v := range x {
		s += float64(v)
	}
	m := s / float64(len(x))
	for _, v := range x {
		q += (float64(v) - m) * (float64(v) - m)
	}
	return float32(m), float32(1 / math.Sqrt(q/float64(len(x))+float64(eps)))
}
