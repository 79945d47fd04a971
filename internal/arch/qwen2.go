package arch

// loadQwen2 reads Qwen2ForCausalLM (Yang et al. 2024): Llama with biases of queries, keys and
// values and, in some checkpoints, a window in the upper layers.
func loadQwen2(b *builder) { b.llama(llamaParts{QKVBias: true, Window: b.upperWindow}) }

// upperWindow returns the window of a layer: none below max_window_layers or without use_sliding_window.
func (b *builder) upperWindow(layer int) int {
	if !b.UseSlidingWindow {
		return 0
	}
	return b.window(b.slides(layer, layer >= b.MaxWindowLayers))
}
