package arch

import (
	"math"

	"ptune/internal/kernels"
)

// loadFalcon reads FalconForCausalLM (Almazrouei et al. 2023) in its three styles: falcon-rw (ALiBi, MLP
// after the attention), falcon-7b (parallel after one layer norm, one key head) and falcon-40b and later
// (groups of query heads with their key and value in one matrix).
func loadFalcon(b *builder) {
	d, inner := b.HiddenSize, b.FFNHiddenSize
	if inner == 0 {
		inner = 4 * d
	}
	b.HeadDim, b.NumKeyValueHeads = 0, b.NumAttentionHeads
	switch {
	case b.NewDecoderArchitecture && b.NumKVHeads != 0:
		b.NumKeyValueHeads = b.NumKVHeads
	case !b.NewDecoderArchitecture && b.MultiQuery:
		b.NumKeyValueHeads = 1
	}
	h := b.shape("hidden_size", "ffn_hidden_size", "num_hidden_layers", "num_attention_heads",
		d, inner, b.NumHiddenLayers, b.NumAttentionHeads)
	act := b.activation("activation", b.Activation)
	if b.failed() {
		return
	}
	var rotary *kernels.Rotary
	var noPrompt *kernels.ALiBi
	if b.Alibi {
		h.Bias, noPrompt = falconALiBi(h)
		b.m.MaxPositions = 0
	} else if rotary = b.rotary(""); b.failed() {
		return
	}
	norms := 1
	if b.NewDecoderArchitecture {
		norms = 2
	}
	if b.NumLnInParallelAttn != nil {
		norms = *b.NumLnInParallelAttn
	}
	parallel := b.ParallelAttn || b.NewDecoderArchitecture
	b.embedding("transformer.", "word_embeddings")
	b.m.Norm = b.layerNorm("ln_f", b.LayerNormEpsilon)
	for i := range b.NumHiddenLayers {
		n := layer("h.%d.", i)
		qkv := b.linear(n+"self_attention.query_key_value", h.QCols()+h.KVCols(), d, b.Bias)
		fused := Fused{Linear: qkv}
		fused.Q, fused.K, fused.V = groupByGroup(h)
		blk := Block{
			Name:     n,
			Attn:     Attention{Heads: h, Fused: &fused, Rotary: rotary, NoPromptBias: noPrompt},
			AttnOut:  b.linear(n+"self_attention.dense", d, d, b.Bias),
			MLP:      b.mlp(n+"mlp.dense_h_to_4h", n+"mlp.dense_4h_to_h", d, inner, act, b.Bias),
			Parallel: parallel,
		}
		switch {
		case !parallel:
			blk.AttnNorm = b.layerNorm(n+"input_layernorm", b.LayerNormEpsilon)
			blk.MLPNorm = b.layerNorm(n+"post_attention_layernorm", b.LayerNormEpsilon)
		case norms == 2:
			blk.AttnNorm = b.layerNorm(n+"ln_attn", b.LayerNormEpsilon)
			blk.MLPNorm = b.layerNorm(n+"ln_mlp", b.LayerNormEpsilon)
		default:
			blk.AttnNorm = b.layerNorm(n+"input_layernorm", b.LayerNormEpsilon)
			blk.MLPNorm = blk.AttnNorm
		}
		b.m.Blocks = append(b.m.Blocks, blk)
	}
	b.outputs(true, false)
}

// falconALiBi returns the biases of falcon-rw, with and without a soft prompt. Their slopes are
// bfloat16, whatever the weights' type, and they are scaled with the scores. Without a soft prompt
// transformers also computes the biases in bfloat16. With one, PEFT passes a float mask and they
// are f32, except in its generate, which passes an integer mask. ptune generates as it trains; so
// its texts can differ from PEFT's where two tokens are within some thousandths of each other.
func falconALiBi(h kernels.Heads) (prompted, noPrompt *kernels.ALiBi) {
	prompted, noPrompt = kernels.NewALiBi(h.Q), kernels.NewALiBi(h.Q)
	for _, a := range []*kernels.ALiBi{prompted, noPrompt} {
		a.Scale = h.Scale
		for i, slope := range a.Slopes {
			a.Slopes[i] = BF16(slope)
		}
	}
	noPrompt.Round = BF16
	return prompted, noPrompt
}

// groupByGroup returns the outputs at which each head begins in a matrix that makes the first group of
// query heads, the key they share and its value, then the second group, and so on.
func groupByGroup(h kernels.Heads) (q, k, v []int) {
	at := 0
	for range h.KV {
		for range h.Q / h.KV {
			q, at = append(q, at), at+h.Dim
		}
		k, v, at = append(k, at), append(v, at+h.Dim), at+2*h.Dim
	}
	return q, k, v
}

// BF16 rounds x to the nearest bfloat16, ties to even.
func BF16(x float32) float32 {
	bits := math.Float32bits(x)
	return math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
}
