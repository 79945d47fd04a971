package arch

// loadOPT reads OPTForCausalLM (Zhang et al. 2022): GPT-2 with a ReLU and learned positions that
// begin at the table's third row. It refuses opt-350m, which has norms after its blocks and
// embeddings of another width.
func loadOPT(b *builder) {
	b.NumKeyValueHeads, b.HeadDim = 0, 0
	h := b.shape("hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads",
		b.HiddenSize, b.FFNDim, b.NumHiddenLayers, b.NumAttentionHeads)
	b.sizes(map[string]int{"max_position_embeddings": b.MaxPositionEmbeddings})
	act := b.activation("activation_function", b.ActivationFunction)
	b.refuseIf(!b.DoLayerNormBefore, "do_layer_norm_before: false")
	b.refuseIf(b.WordEmbedProjDim != 0 && b.WordEmbedProjDim != b.HiddenSize,
		"a word_embed_proj_dim other than hidden_size")
	b.refuseIf(!b.LayerNormElementwiseAffine, "layer_norm_elementwise_affine: false")
	b.refuseIf(b.RemoveFinalLayerNorm, "_remove_final_layer_norm")
	if b.failed() {
		return
	}
	const eps, offset = 1e-5, 2
	d := b.HiddenSize
	b.embedding("model.", "decoder.embed_tokens")
	b.m.Embedding.Offset = offset
	positions := b.matrix("decoder.embed_positions.weight", b.MaxPositionEmbeddings+offset, d, false)
	b.m.Embedding.Positions = &positions
	b.m.Norm = b.layerNorm("decoder.final_layer_norm", eps)
	for i := range b.NumHiddenLayers {
		n := layer("decoder.layers.%d.", i)
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"self_attn_layer_norm", eps),
			Attn:     b.attention(n+"self_attn", h, b.EnableBias),
			AttnOut:  b.linear(n+"self_attn.out_proj", d, d, b.EnableBias),
			MLPNorm:  b.layerNorm(n+"final_layer_norm", eps),
			MLP:      b.mlp(n+"fc1", n+"fc2", d, b.FFNDim, act, b.EnableBias),
		})
	}
	b.outputs(true, false)
}
