package arch

import "cmp"

// loadGPTNeo reads GPTNeoForCausalLM (Black et al. 2021; TinyStories): GPT-2 with a window in some
// layers and unscaled scores.
func loadGPTNeo(b *builder) {
	b.NumLayers = cmp.Or(b.NumLayers, b.NumHiddenLayers)
	b.NumHeads = cmp.Or(b.NumHeads, b.NumAttentionHeads)
	inner := b.IntermediateSize
	if inner == 0 {
		inner = 4 * b.HiddenSize
	}
	b.NumKeyValueHeads, b.HeadDim = 0, 0
	h := b.shape("hidden_size", "intermediate_size", "num_layers", "num_heads",
		b.HiddenSize, inner, b.NumLayers, b.NumHeads)
	b.sizes(map[string]int{
		"max_position_embeddings": b.MaxPositionEmbeddings, "window_size": b.WindowSize,
	})
	act := b.activation("activation_function", b.ActivationFunction)
	kinds := b.attentionKinds()
	if !b.failed() && len(kinds) != b.NumLayers {
		b.refuse("attention_types names %d layers, num_layers is %d", len(kinds), b.NumLayers)
	}
	if b.failed() {
		return
	}
	d := b.HiddenSize
	h.Scale = 1
	b.embedding("transformer.", "wte")
	b.m.Embedding.Positions = new(b.matrix("wpe.weight", b.MaxPositionEmbeddings, d, false))
	b.m.Norm = b.layerNorm("ln_f", b.LayerNormEpsilon)
	for i := range b.NumLayers {
		n := layer("h.%d.", i)
		switch kinds[i] {
		case "global":
			h.Window = 0
		case "local":
			h.Window = b.WindowSize
		default:
			b.refuse("attention_types has %q; ptune supports global and local", kinds[i])
		}
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"ln_1", b.LayerNormEpsilon),
			Attn:     b.attention(n+"attn.attention", h, false),
			AttnOut:  b.linear(n+"attn.attention.out_proj", d, d, true),
			MLPNorm:  b.layerNorm(n+"ln_2", b.LayerNormEpsilon),
			MLP:      b.mlp(n+"mlp.c_fc", n+"mlp.c_proj", d, inner, act, true),
		})
	}
	b.outputs(true, false)
}
