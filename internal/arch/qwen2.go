package arch

// loadQwen2 reads Qwen2ForCausalLM (Yang et al. 2024): Llama with biases at queries, keys and values, and in some checkpoints a
// window in the upper layers.
func loadQwen2(b *builder) { b.llama(llamaParts{QKVBias: true, Window: b.upperWindow}) }

// upperWindow is the window of a layer from max_window_layers on, if use_sliding_window is set.
func (b *builder) upperWindow(layer int) int {
	if !b.UseSlidingWindow {
		return 0
	}
	return b.window(b.slides(layer, layer >= b.MaxWindowLayers))
}
