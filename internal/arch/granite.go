package arch

// loadGranite reads GraniteForCausalLM (IBM 2024): Llama with four multipliers, of the embedded rows (soft prompts too), of q·k,
// of what joins the residual stream, and of the logits.
func loadGranite(b *builder) {
	for name, x := range map[string]*float64{"embedding_multiplier": &b.EmbeddingMultiplier, "residual_multiplier": &b.ResidualMultiplier,
		"attention_multiplier": &b.AttentionMultiplier, "logits_scaling": &b.LogitsScaling} {
		b.positive(name, x)
	}
	b.m.Embedding.All = float32(b.EmbeddingMultiplier)
	b.m.Head.Scale = float32(1 / b.LogitsScaling)
	b.llama(llamaParts{QKVBias: b.AttentionBias, OutBias: b.AttentionBias, MLPBias: b.MLPBias,
		Scale: float32(b.AttentionMultiplier), Residual: float32(b.ResidualMultiplier)})
}
