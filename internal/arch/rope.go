package arch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"

	"ptune/internal/kernels"
)

// ropeParameters has the keys of rope_parameters (transformers 5) or rope_scaling.
type ropeParameters struct {
	RopeType                      string    `json:"rope_type"`
	Type                          string    `json:"type"` // rope_type in older checkpoints
	RopeTheta                     *float64  `json:"rope_theta"`
	PartialRotaryFactor           *float64  `json:"partial_rotary_factor"`
	Factor                        *float64  `json:"factor"`
	OriginalMaxPositionEmbeddings int       `json:"original_max_position_embeddings"`
	LowFreqFactor                 float64   `json:"low_freq_factor"`
	HighFreqFactor                float64   `json:"high_freq_factor"`
	AttentionFactor               *float64  `json:"attention_factor"`
	BetaFast                      *float64  `json:"beta_fast"`
	BetaSlow                      *float64  `json:"beta_slow"`
	MScale                        float64   `json:"mscale"`
	MScaleAllDim                  float64   `json:"mscale_all_dim"`
	Truncate                      *bool     `json:"truncate"`
	ShortFactor                   []float64 `json:"short_factor"`
	LongFactor                    []float64 `json:"long_factor"`
}

// ropeParameters returns the parameters of a kind of layer: full_attention, sliding_attention, or empty
// if there is only one kind. Theta and the rotated part come from config.json's own keys if the
// parameters do not have them.
func (c *Config) ropeParameters(kind string) (ropeParameters, error) {
	p := ropeParameters{}
	if kind == "sliding_attention" {
		p.RopeTheta = c.RopeLocalBaseFreq
	}
	for _, raw := range []struct {
		key  string
		data json.RawMessage
	}{{"rope_parameters", c.RopeParameters}, {"rope_scaling", c.RopeScaling}} {
		if len(raw.data) == 0 || string(raw.data) == "null" {
			continue
		}
		var nested map[string]json.RawMessage
		if err := json.Unmarshal(raw.data, &nested); err != nil {
			return p, fmt.Errorf("%s is %s, want an object", raw.key, shorten(raw.data))
		}
		data := raw.data
		if _, ok := nested["full_attention"]; ok && kind == "" {
			return p, fmt.Errorf("%s differs by kind of layer, which ptune does not support for %s",
				raw.key, c.ModelType)
		}
		if of, ok := nested[kind]; ok {
			data = of
		} else if kind == "sliding_attention" {
			continue // the parameters are those of full_attention
		}
		if err := decode(data, &p); err != nil {
			return p, fmt.Errorf("%s: %w", raw.key, err)
		}
	}
	if p.RopeType == "" {
		p.RopeType = p.Type
	}
	if p.RopeTheta == nil {
		switch {
		case kind == "sliding_attention":
			p.RopeTheta = new(10000.0)
		case c.RotaryEmbBase != 0:
			p.RopeTheta = new(c.RotaryEmbBase)
		case c.RopeTheta != 0:
			p.RopeTheta = new(c.RopeTheta)
		default:
			p.RopeTheta = new(10000.0)
		}
	}
	if p.PartialRotaryFactor == nil {
		if p.PartialRotaryFactor = c.PartialRotaryFactor; c.RotaryPct != nil {
			p.PartialRotaryFactor = c.RotaryPct
		}
	}
	if p.PartialRotaryFactor == nil {
		p.PartialRotaryFactor = new(1.0)
	}
	if p.OriginalMaxPositionEmbeddings == 0 || c.OriginalMaxPositionEmbeddings != 0 {
		p.OriginalMaxPositionEmbeddings =
			cmp.Or(c.OriginalMaxPositionEmbeddings, c.MaxPositionEmbeddings)
	}
	return p, nil
}

// rotary returns the rotary embedding of a kind of layer, as transformers' modeling_rope_utils computes
// it. With LongRoPE and dynamic NTK, transformers changes the angles of the whole batch once a text is
// longer than the checkpoint's original length; ptune accepts texts up to that length.
func (b *builder) rotary(kind string) *kernels.Rotary {
	if b.failed() {
		return nil // sizes cannot be trusted
	}
	p, err := b.ropeParameters(kind)
	if err != nil {
		b.refuse("%v", err)
		return nil
	}
	dim, theta := int(float64(b.HeadDim)**p.PartialRotaryFactor), *p.RopeTheta
	if dim < 2 || dim%2 != 0 || dim > b.HeadDim || theta <= 0 {
		b.refuse("cannot rotate %d of a head's %d values with base %g", dim, b.HeadDim, theta)
		return nil
	}
	inv, attention := kernels.Angles(dim, theta), 1.0
	factor := 1.0
	if p.Factor != nil {
		factor = *p.Factor
	}
	original := float64(p.OriginalMaxPositionEmbeddings)
	needsLength := p.RopeType != "" && p.RopeType != "default" && p.RopeType != "linear"
	if !(factor > 0) || original < 1 && needsLength {
		b.refuse("rope_scaling has factor %g and original_max_position_embeddings %g", factor, original)
		return nil
	}
	switch p.RopeType {
	case "", "default", "dynamic": // dynamic is default up to max_position_embeddings
	case "linear":
		for i := range inv {
			inv[i] /= factor
		}
	case "llama3":
		if !(p.LowFreqFactor > 0) || !(p.HighFreqFactor > p.LowFreqFactor) {
			b.refuse("rope_scaling has low_freq_factor %g and high_freq_factor %g, want 0 < low < high",
				p.LowFreqFactor, p.HighFreqFactor)
			return nil
		}
		p.llama3(inv, factor, original)
	case "yarn":
		if b.ModelType == "phi3" { // older checkpoints have this name for LongRoPE
			attention = b.longRoPE(p, inv, original)
			break
		}
		attention = p.yarn(inv, dim, theta, factor, original)
	case "longrope", "su":
		attention = b.longRoPE(p, inv, original)
	default:
		b.refuse("rope_type is %q; ptune supports default, linear, dynamic, llama3, yarn and longrope",
			p.RopeType)
	}
	for _, f := range append(inv, attention) {
		if !(f > 0) || math.IsInf(f, 1) {
			b.refuse("rope_scaling gives an angle or factor of %g, want a finite number above zero", f)
			return nil
		}
	}
	return kernels.NewRotaryOf(inv, attention)
}

// llama3 divides by factor the angles whose wavelength is long compared with the original context, and
// interpolates those in between (Llama 3.1).
func (p ropeParameters) llama3(inv []float64, factor, original float64) {
	for i, f := range inv {
		switch wave := 2 * math.Pi / f; {
		case wave > original/p.LowFreqFactor:
			inv[i] = f / factor
		case wave >= original/p.HighFreqFactor:
			smooth := (original/wave - p.LowFreqFactor) / (p.HighFreqFactor - p.LowFreqFactor)
			inv[i] = (1-smooth)*f/factor + smooth*f
		}
	}
}

// yarn divides the angles by factor along a ramp over the dimensions (Peng et al. 2023, arXiv
// 2309.00071). It returns the factor of queries and keys.
func (p ropeParameters) yarn(inv []float64, dim int, theta, factor, original float64) float64 {
	fast, slow := 32.0, 1.0
	if p.BetaFast != nil && *p.BetaFast != 0 {
		fast = *p.BetaFast
	}
	if p.BetaSlow != nil && *p.BetaSlow != 0 {
		slow = *p.BetaSlow
	}
	at := func(rotations float64) float64 {
		return float64(dim) * math.Log(original/(rotations*2*math.Pi)) / (2 * math.Log(theta))
	}
	low, high := at(fast), at(slow)
	if p.Truncate == nil || *p.Truncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(dim-1))
	if low == high {
		high += 0.001
	}
	for i, f := range inv {
		ramp := min(1, max(0, (float64(i)-low)/(high-low)))
		inv[i] = f/factor*ramp + f*(1-ramp)
	}
	scale := func(m float64) float64 {
		if factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(factor) + 1
	}
	switch {
	case p.AttentionFactor != nil:
		return *p.AttentionFactor
	case p.MScale != 0 && p.MScaleAllDim != 0:
		return scale(p.MScale) / scale(p.MScaleAllDim)
	}
	return scale(1)
}

// longRoPE divides each angle by its number in short_factor, which is for texts up to the original
// length (Ding et al. 2024, arXiv 2402.13753). It returns the factor of queries and keys.
func (b *builder) longRoPE(p ropeParameters, inv []float64, original float64) float64 {
	if len(p.ShortFactor) != len(inv) {
		b.refuse("rope_scaling has %d numbers in short_factor, want %d", len(p.ShortFactor), len(inv))
		return 1
	}
	for i := range inv {
		inv[i] /= p.ShortFactor[i]
	}
	b.m.MaxPositions = int(original)
	factor := float64(b.MaxPositionEmbeddings) / original
	if p.Factor != nil {
		factor = *p.Factor
	}
	switch {
	case p.AttentionFactor != nil:
		return *p.AttentionFactor
	case factor <= 1:
		return 1
	}
	return math.Sqrt(1 + math.Log(factor)/math.Log(original))
}
