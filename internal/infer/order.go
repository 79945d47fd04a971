package infer

import (
	"math"
	"slices"
)

// draw returns what drawSorted returns for the same u, in a fiftieth of the time. sure is false if the
// choice is too close to a limit to be made without sorting all tokens. That is so for less than one
// choice in a thousand.
func (s *sampler) draw(logits []float32, u float64) (id int32, sure bool) {
	if s.order == nil {
		s.order = new(order)
	}
	for _, depth := range orderDepths {
		if s.order.fill(logits, s.Temperature, depth) {
			if id, sure = s.drawFrom(s.order, u); sure {
				return id, true
			}
		}
	}
	return 0, false
}

func (s *sampler) drawFrom(o *order, u float64) (id int32, sure bool) {
	end := cut{n: len(o.logits), mass: o.total}
	if s.TopK > 0 && s.TopK < end.n {
		if end, sure = o.cut(s.TopK, math.Inf(1), 0); !sure {
			return 0, false
		}
	}
	if s.TopP > 0 && s.TopP < 1 {
		if end, sure = o.cut(end.n, s.TopP*end.mass, 0); !sure {
			return 0, false
		}
	}
	if s.MinP > 0 {
		if end, sure = o.cut(end.n, math.Inf(1), s.MinP); !sure {
			return 0, false
		}
	}
	end, sure = o.cut(end.n, u*end.mass, 0)
	return end.id, sure
}

// order is the order of tokens by falling logits, of which only the parts that are needed are sorted.
// The weight of a token is e^-below, with below = (greatest logit − its logit) / temperature.
type order struct {
	logits      []float32
	temperature float64
	most        float32 // the greatest logit
	scale       float64 // bins for each unit of most − logit
	bins        [orderBins]bin
	last        int     // the last bin above the depth
	deep        int     // the number of tokens below it
	total       float64 // of their weights
	doubt       float64 // an exact sum of weights may differ by this
	keys        []uint64
	ids         []int32 // of the bin sorted last
}

// bin i is the tokens with below from i−½ to i+½ times ln 2/perOctave.
type bin struct {
	n    int
	mass float64 // the sum of weights
}

// A vocabulary's tokens beyond e^-16 together have a weight of 5e-3 at most: few choices are as close
// to a limit, and most tokens of a trained model need no exponential. Those beyond e^-32 have 6e-10.
var orderDepths = [...]float64{16, 32}

const (
	perOctave = 32                    // bins: of 49,152 logits within one temperature, the fullest has some hundred
	orderBins = 1 + 32*perOctave*13/9 // for the greatest depth; 13/9 is just above 1/ln 2
)

// fill counts and weighs the tokens of each bin as deep as e^-depth. ok is false if the weights have
// no finite sum.
func (o *order) fill(logits []float32, temperature, depth float64) (ok bool) {
	o.logits, o.temperature, o.most = logits, temperature, logits[0]
	for _, v := range logits {
		if v > o.most {
			o.most = v
		}
	}
	o.scale = perOctave / math.Ln2 / temperature
	o.last = int(depth * perOctave / math.Ln2)
	bins, last := o.bins[:o.last+1], float64(o.last)-0.5
	clear(bins)
	o.deep = 0
	deep := float32(last / o.scale * (1 + 1e-6)) // most tokens lie below it: they need one comparison
	for _, v := range logits {
		if o.most-v > deep {
			o.deep++
			continue
		}
		x := float64(o.most-v) * o.scale
		if !(x < last) { // or not a number
			o.deep++
			continue
		}
		at := int(x + 0.5)
		r := (x - float64(at)) * (math.Ln2 / perOctave)
		b := &bins[at]
		b.n++
		b.mass += 1 - r*(1-r*(0.5-r*(1.0/6))) // e^-r, for now without the bin's own share
	}
	o.total = 0
	for i := range bins {
		bins[i].mass *= math.Exp2(-float64(i) / perOctave)
		o.total += bins[i].mass
	}
	// The next term of e^-r is at most 6e-10.
	o.doubt = 1e-9*o.total + float64(o.deep)*math.Exp(-depth)
	return o.total > 0
}

// cut is a beginning of the order.
type cut struct {
	n    int
	mass float64
	id   int32 // its last token
}

// cut returns the shortest beginning that has n tokens, or at least this mass, or after which no token
// has the weight least. sure is false if the mass is in doubt or tokens below the depth are needed.
func (o *order) cut(n int, mass, least float64) (c cut, sure bool) {
	doubt := 3 * o.doubt // of c.mass, and of mass, which may be a share of a share
	whole := o.last      // bins before this one have no token with a weight below least
	if least > 0 {
		whole = int(-math.Log(least)*o.temperature*o.scale) - 1
	}
	for i, b := range o.bins[:o.last+1] {
		if i < whole && c.n+b.n < n && c.mass+b.mass < mass-doubt {
			c.n += b.n
			c.mass += b.mass
			continue
		}
		for _, id := range o.sorted(i) {
			weight := o.weight(id)
			if weight < least {
				return c, true
			}
			c.n, c.mass, c.id = c.n+1, c.mass+weight, id
			switch {
			case math.Abs(c.mass-mass) <= doubt:
				return c, false
			case c.n == n || c.mass > mass:
				return c, true
			}
		}
	}
	c.n = n // without a limit of mass: what lies below the depth has none that counts
	return c, math.IsInf(mass, 1) && (least == 0 || o.deep == 0)
}

// sorted returns the tokens of a bin in order.
func (o *order) sorted(bin int) []int32 {
	const margin = 0.51 // of a bin; more than half, so that rounding loses none
	from := float32((float64(bin) - margin) / o.scale)
	to := float32((float64(bin) + margin) / o.scale)
	keys := o.keys[:0]
	for id, v := range o.logits {
		below := o.most - v
		if below >= from && below <= to && int(float64(below)*o.scale+0.5) == bin {
			bits := math.Float32bits(v + 0) // the bits of a negative zero differ
			if bits>>31 == 0 {
				bits = ^bits & math.MaxInt32
			}
			keys = append(keys, uint64(bits)<<32|uint64(id))
		}
	}
	slices.Sort(keys)
	o.keys, o.ids = keys, o.ids[:0]
	for _, k := range keys {
		o.ids = append(o.ids, int32(uint32(k)))
	}
	return o.ids
}

func (o *order) weight(id int32) float64 {
	return math.Exp(float64(o.logits[id]-o.most) / o.temperature)
}
