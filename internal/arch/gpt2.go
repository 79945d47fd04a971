package arch

import (
	"cmp"
)

// loadGPT2 reads GPT2LMHeadModel (Radford et al. 2019): learned positions, layer norms before
// attention and MLP, one matrix for queries, keys and values, all matrices stored [in, out]
// (Conv1D), a GELU MLP and a tied head.
func loadGPT2(b *builder) {
	b.NLayer = cmp.Or(b.NLayer, b.NumHiddenLayers)
	b.NHead = cmp.Or(b.NHead, b.NumAttentionHeads)
	b.NEmbd = cmp.Or(b.NEmbd, b.HiddenSize)
	inner := 4 * b.NEmbd
	if b.NInner != nil {
		inner = *b.NInner
	}
	b.NumKeyValueHeads, b.HeadDim, b.MaxPositionEmbeddings = 0, 0, b.NPositions
	h := b.shape("n_embd", "n_inner", "n_layer", "n_head", b.NEmbd, inner, b.NLayer, b.NHead)
	b.sizes(map[string]int{"n_positions": b.NPositions})
	act := b.activation("activation_function", b.ActivationFunction)
	b.refuseIf(b.AddCrossAttention, "add_cross_attention")
	if b.failed() {
		return
	}
	if b.ScaleAttnWeights != nil && !*b.ScaleAttnWeights {
		h.Scale = 1
	}
	d := b.NEmbd
	conv1D := func(name string, in, out int) *Linear {
		return &Linear{Weight: b.matrix(name+".weight", in, out, true),
			Bias: b.vector(name+".bias", out)}
	}
	b.embedding("transformer.", "wte")
	b.m.Embedding.Positions = new(b.matrix("wpe.weight", b.NPositions, d, false))
	b.m.Norm = b.layerNorm("ln_f", b.LayerNormEpsilon)
	for i := range b.NLayer {
		n := layer("h.%d.", i)
		heads := h
		if b.ScaleAttnByInverseLayerIdx {
			heads.Scale = float32(float64(h.Scale) / float64(i+1))
		}
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"ln_1", b.LayerNormEpsilon),
			Attn:     b.inRows(heads, conv1D(n+"attn.c_attn", d, 3*d)),
			AttnOut:  conv1D(n+"attn.c_proj", d, d),
			MLPNorm:  b.layerNorm(n+"ln_2", b.LayerNormEpsilon),
			MLP: MLP{Act: act,
				Up: conv1D(n+"mlp.c_fc", d, inner), Down: conv1D(n+"mlp.c_proj", inner, d)},
		})
	}
	b.outputs(true, false)
}
