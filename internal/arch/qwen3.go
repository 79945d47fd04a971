package arch

// loadQwen3 reads Qwen3ForCausalLM (Yang et al. 2025): Llama with an RMS norm of each head's
// queries and keys.
func loadQwen3(b *builder) {
	b.llama(llamaParts{
		QKVBias: b.AttentionBias, OutBias: b.AttentionBias, QKNorm: true, Window: b.upperWindow,
	})
}
