package arch

// loadGranite reads GraniteForCausalLM (IBM 2024): Llama with four multipliers: of the embedded
// rows, soft prompts included, of q·k, of the results of attention and MLP, and of the logits.
func loadGranite(b *builder) {
	b.positive("embedding_multiplier", &b.EmbeddingMultiplier)
	b.positive("residual_multiplier", &b.ResidualMultiplier)
	b.positive("attention_multiplier", &b.AttentionMultiplier)
	b.positive("logits_scaling", &b.LogitsScaling)
	b.m.Embedding.All = float32(b.EmbeddingMultiplier)
	b.m.Head.Scale = float32(1 / b.LogitsScaling)
	b.llama(llamaParts{QKVBias: b.AttentionBias, OutBias: b.AttentionBias, MLPBias: b.MLPBias,
		Scale: float32(b.AttentionMultiplier), Residual: float32(b.ResidualMultiplier)})
}
