package arch

// loadPhi3 reads Phi3ForCausalLM (Abdin et al. 2024): Llama with one matrix for queries, keys and values
// and one for gate and up. Its checkpoints for long texts have LongRoPE.
func loadPhi3(b *builder) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	d, inner, q, kv := b.HiddenSize, b.IntermediateSize, h.QCols(), h.KVCols()/2
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.rmsNorm("norm", d)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		h.Window = b.window(true)
		qkv := b.linear(n+"self_attn.qkv_proj", q+2*kv, d, false)
		gateUp := b.linear(n+"mlp.gate_up_proj", 2*inner, d, false)
		attn := b.inRows(h, qkv)
		attn.Rotary = rotary
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.rmsNorm(n+"input_layernorm", d),
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", d, q, false),
			MLPNorm:  b.rmsNorm(n+"post_attention_layernorm", d),
			MLP: MLP{Act: act,
				Gate: b.outRange(gateUp, 0, inner), Up: b.outRange(gateUp, inner, inner),
				Down: b.linear(n+"mlp.down_proj", d, inner, false)},
		})
	}
	b.outputs(false, false)
}
