package model

import "ptune/internal/ops"

// loadOLMo2 reads Olmo2ForCausalLM (OLMo Team 2024): Llama whose norms come after attention and MLP, not before, and that norms all
// queries and all keys of a row together.
func loadOLMo2(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	b.embedding("model.", "embed_tokens")
	d := &decoder{Norm: b.rmsNorm("norm", b.HiddenSize)}
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		attn := b.attention(i, n+"self_attn", h, b.AttentionBias)
		attn.Rotary = rotary
		attn.QNorm, attn.KNorm = b.headNorms(n+"self_attn", h.QCols(), h.KVCols()/2)
		d.Blocks = append(d.Blocks, block{
			Name:     n,
			AttnNorm: ops.Norm{Name: n + "attention"},
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), b.AttentionBias),
			AttnPost: some(b.rmsNorm(n+"post_attention_layernorm", b.HiddenSize)),
			MLPNorm:  ops.Norm{Name: n + "feedforward"},
			MLP:      b.gated(n+"mlp", act, false),
			MLPPost:  some(b.rmsNorm(n+"post_feedforward_layernorm", b.HiddenSize)),
		})
	}
	b.m.arch = d
	b.outputs(false, false)
}
