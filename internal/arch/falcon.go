package arch

import (
	"math"

	"ptune/internal/kernels"
)

// loadFalcon reads FalconForCausalLM (Almazrouei et al. 2023) in its three styles: falcon-rw (ALiBi, attention and MLP one after
// the other), falcon-7b (both side by side behind one layer norm, one key head) and falcon-40b and later (groups of query heads
// with their key and value in one matrix).
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
	h := b.shape("hidden_size", "ffn_hidden_size", "num_hidden_layers", "num_attention_heads", d, inner, b.NumHiddenLayers, b.NumAttentionHeads)
	act := b.activation("activation", b.Activation)
	if b.failed() {
		return
	}
	var rotary *kernels.Rotary
	var alone *kernels.ALiBi
	if b.Alibi {
		h.Bias, alone = falconALiBi(h)
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
		fused := Fused{Linear: b.linear(n+"self_attention.query_key_value", h.QCols()+h.KVCols(), d, b.Bias)}
		fused.Q, fused.K, fused.V = groupsInTurn(h)
		blk := Block{
			Name:     n,
			Attn:     Attention{Heads: h, Fused: &fused, Rotary: rotary, Alone: alone},
			AttnOut:  b.linear(n+"self_attention.dense", d, d, b.Bias),
			MLP:      MLP{Up: b.linear(n+"mlp.dense_h_to_4h", inner, d, b.Bias), Down: b.linear(n+"mlp.dense_4h_to_h", d, inner, b.Bias), Act: act},
			Parallel: parallel,
		}
		switch {
		case !parallel:
			blk.AttnNorm, blk.MLPNorm = b.layerNorm(n+"input_layernorm", b.LayerNormEpsilon), b.layerNorm(n+"post_attention_layernorm", b.LayerNormEpsilon)
		case norms == 2:
			blk.AttnNorm, blk.MLPNorm = b.layerNorm(n+"ln_attn", b.LayerNormEpsilon), b.layerNorm(n+"ln_mlp", b.LayerNormEpsilon)
		default:
			blk.AttnNorm = b.layerNorm(n+"input_layernorm", b.LayerNormEpsilon)
			blk.MLPNorm = blk.AttnNorm
		}
		b.m.Blocks = append(b.m.Blocks, blk)
	}
	b.outputs(true, false)
}

// falconALiBi are the biases of falcon-rw, whose slopes are bfloat16 whatever the weights' type, and which scores are scaled with.
// Without a soft prompt transformers computes the biases, too, in bfloat16; behind one PEFT gives it a mask of floats, and they are
// f32. PEFT's generate gives it whole numbers again, so that its texts may part from ours, which are generated as was trained, where two
// tokens are within some thousandths of each other.
func falconALiBi(h kernels.Heads) (prompted, alone *kernels.ALiBi) {
	prompted, alone = kernels.NewALiBi(h.Q), kernels.NewALiBi(h.Q)
	for _, a := range []*kernels.ALiBi{prompted, alone} {
		a.Scale = h.Scale
		for i, slope := range a.Slopes {
			a.Slopes[i] = BF16(slope)
		}
	}
	alone.Round = BF16
	return prompted, alone
}

// groupsInTurn are the columns where each head begins of groups that follow each other, each of the query heads that share a key
// head, then that key, then its value.
func groupsInTurn(h kernels.Heads) (q, k, v []int) {
	at := 0
	for range h.KV {
		for range h.Q / h.KV {
			q, at = append(q, at), at+h.Dim
		}
		k, v, at = append(k, at), append(v, at+h.Dim), at+2*h.Dim
	}
	return q, k, v
}

// BF16 rounds to bfloat16, to even.
func BF16(x float32) float32 {
	bits := math.Float32bits(x)
	return math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
}
