package arch

// loadGPTNeoX reads GPTNeoXForCausalLM (Black et al. 2022; Pythia): parallel attention and MLP,
// each after its own layer norm, rotary positions in a part of each head, and query, key and value
// head by head in one matrix.
func loadGPTNeoX(b *builder) {
	b.NumKeyValueHeads, b.HeadDim = 0, 0
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	d := b.HiddenSize
	b.embedding("gpt_neox.", "embed_in")
	b.m.Norm = b.layerNorm("final_layer_norm", b.LayerNormEps)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		fused := Fused{Linear: b.linear(n+"attention.query_key_value", 3*d, d, b.AttentionBias)}
		fused.Q, fused.K, fused.V = headByHead(h)
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"input_layernorm", b.LayerNormEps),
			Attn:     Attention{Heads: h, Fused: &fused, Rotary: rotary},
			AttnOut:  b.linear(n+"attention.dense", d, d, b.AttentionBias),
			MLPNorm:  b.layerNorm(n+"post_attention_layernorm", b.LayerNormEps),
			MLP: b.mlp(n+"mlp.dense_h_to_4h", n+"mlp.dense_4h_to_h", d, b.IntermediateSize,
				act, true),
			Parallel: b.UseParallelResidual,
		})
	}
	b.atTop("embed_out.weight")
	if tied := b.TieWordEmbeddings; tied != nil && *tied {
		b.m.Head.Weight = b.m.Embedding.Tokens
		return
	}
	b.m.Head.Weight = b.matrix("embed_out.weight", b.VocabSize, d, false)
}
