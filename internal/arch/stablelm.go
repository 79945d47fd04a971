package arch

// loadStableLM reads StableLmForCausalLM (Bellagente et al. 2024): Llama with layer norms, rotary
// positions in a part of each head and, in some checkpoints, parallel attention and MLP.
func loadStableLM(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	b.refuseIf(b.QKLayernorm, "qk_layernorm")
	if b.failed() {
		return
	}
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.layerNorm("norm", b.LayerNormEps)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		attn := b.attention(n+"self_attn", h, b.UseQKVBias)
		attn.Rotary = rotary
		before := b.layerNorm(n+"input_layernorm", b.LayerNormEps)
		blk := Block{
			Name:     n,
			AttnNorm: before,
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), false),
			MLP:      b.gated(n+"mlp", act, false),
			Parallel: b.UseParallelResidual,
		}
		if b.UseParallelResidual {
			blk.MLPNorm = before
		} else {
			blk.MLPNorm = b.layerNorm(n+"post_attention_layernorm", b.LayerNormEps)
		}
		b.m.Blocks = append(b.m.Blocks, blk)
	}
	b.outputs(false, false)
}
