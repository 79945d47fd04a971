package arch

// loadMistral reads MistralForCausalLM (Jiang et al. 2023): Llama with a sliding window in every layer.
func loadMistral(b *builder) {
	b.llama(llamaParts{Window: func(int) int { return b.window(true) }})
}
