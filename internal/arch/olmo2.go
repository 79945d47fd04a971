package arch

// loadOLMo2 reads Olmo2ForCausalLM (OLMo Team 2024): Llama with norms after attention and MLP instead of
// before, and a norm of all queries and one of all keys of a row.
func loadOLMo2(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.rmsNorm("norm", b.HiddenSize)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		attn := b.attention(n+"self_attn", h, b.AttentionBias)
		attn.Rotary = rotary
		attn.QNorm, attn.KNorm = b.headNorms(n+"self_attn", h.QCols(), h.KVCols()/2)
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), b.AttentionBias),
			AttnPost: b.rmsNorm(n+"post_attention_layernorm", b.HiddenSize),
			MLP:      b.gated(n+"mlp", act, false),
			MLPPost:  b.rmsNorm(n+"post_feedforward_layernorm", b.HiddenSize),
		})
	}
	b.outputs(false, false)
}
