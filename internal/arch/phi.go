package arch

// loadPhi reads PhiForCausalLM (Li et al. 2023): parallel attention and MLP after one layer norm, rotary
// positions in a part of each head, and biases everywhere.
func loadPhi(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	b.refuseIf(b.QKLayernorm, "qk_layernorm")
	if b.failed() {
		return
	}
	d := b.HiddenSize
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.layerNorm("final_layernorm", b.LayerNormEps)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		attn := b.attention(n+"self_attn", h, true)
		attn.Rotary = rotary
		before := b.layerNorm(n+"input_layernorm", b.LayerNormEps)
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: before,
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.dense", d, h.QCols(), true),
			MLPNorm:  before,
			MLP:      b.mlp(n+"mlp.fc1", n+"mlp.fc2", d, b.IntermediateSize, act, true),
			Parallel: true,
		})
	}
	b.outputs(false, true)
}
