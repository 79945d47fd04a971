package arch

// loadSmolLM3 reads SmolLM3ForCausalLM: Llama without rotary positions in every fourth layer (Yang
// et al. 2025, "RoPE to NoRoPE and Back Again").
func loadSmolLM3(b *builder) {
	if b.NoRopeLayers != nil && len(b.NoRopeLayers) < b.NumHiddenLayers {
		b.refuse("no_rope_layers has %d entries for %d layers", len(b.NoRopeLayers), b.NumHiddenLayers)
	}
	if b.NoRopeLayerInterval < 1 {
		b.refuse("no_rope_layer_interval is %d, want 1 or more", b.NoRopeLayerInterval)
	}
	rotary := func(layer int) bool { // no_rope_layers has 1 for the layers with rotary positions
		if b.NoRopeLayers != nil {
			return b.NoRopeLayers[layer] != 0
		}
		return (layer+1)%b.NoRopeLayerInterval != 0
	}
	window := func(layer int) int {
		if !b.UseSlidingWindow {
			return 0
		}
		return b.window(b.slides(layer, !rotary(layer)))
	}
	b.llama(llamaParts{
		QKVBias: b.AttentionBias, OutBias: b.AttentionBias, MLPBias: b.MLPBias,
		Rotary: rotary, Window: window, Tied: true,
	})
}
