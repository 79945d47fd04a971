package arch

// loadMistral reads MistralForCausalLM (Jiang et al. 2023): Llama with a window that every layer's attention slides along.
func loadMistral(b *builder) {
	b.llama(llamaParts{Window: func(int) int { return b.window(true) }})
}
