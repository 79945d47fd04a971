package arch

// loadSmolLM3 reads SmolLM3ForCausalLM: Llama where every fourth layer knows no positions (Yang et al. 2025, "RoPE to NoRoPE and
// back again").
func loadSmolLM3(b *builder) {
	if b.NoRopeLayers != nil && len(b.NoRopeLayers) < b.NumHiddenLayers {
		b.refuse("no_rope_layers has %d entries for %d layers", len(b.NoRopeLayers), b.NumHiddenLayers)
	}
	if b.NoRopeLayerInterval < 1 {
		b.refuse("no_rope_layer_interval is %d, want 1 or more", b.NoRopeLayerInterval)
	}
	turns := func(layer int) bool { // no_rope_layers lists, in spite of its name, the layers that have positions
		if b.NoRopeLayers != nil {
			return b.NoRopeLayers[layer] != 0
		}
		return (layer+1)%b.NoRopeLayerInterval != 0
	}
	window := func(layer int) int {
		if !b.UseSlidingWindow {
			return 0
		}
		return b.window(b.slides(layer, !turns(layer)))
	}
	b.llama(llamaParts{QKVBias: b.AttentionBias, OutBias: b.AttentionBias, MLPBias: b.MLPBias, Rotary: turns, Window: window, Tied: true})
}
