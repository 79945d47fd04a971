package arch

// loadStarcoder2 reads Starcoder2ForCausalLM (Lozhkov et al. 2024): Llama's attention with layer norms,
// biases, a GELU MLP without a gate and a sliding window.
func loadStarcoder2(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	d := b.HiddenSize
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.layerNorm("norm", b.NormEpsilon)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		h.Window = b.window(true)
		attn := b.attention(n+"self_attn", h, b.UseBias)
		attn.Rotary = rotary
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"input_layernorm", b.NormEpsilon),
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", d, h.QCols(), b.UseBias),
			MLPNorm:  b.layerNorm(n+"post_attention_layernorm", b.NormEpsilon),
			MLP:      b.mlp(n+"mlp.c_fc", n+"mlp.c_proj", d, b.IntermediateSize, act, b.UseBias),
		})
	}
	b.outputs(true, false)
}
