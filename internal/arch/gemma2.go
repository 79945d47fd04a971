package arch

// loadGemma2 reads Gemma2ForCausalLM (Gemma Team 2024): Gemma with norms after attention and MLP too, a window in every second
// layer, and scores and logits that a tanh keeps below a cap.
func loadGemma2(b *builder) {
	b.gemma(b.activation("hidden_activation", b.hiddenActivation()), func(n string, i int, blk *Block) {
		b.sandwich(n, blk)
		blk.Attn.Heads.Window = b.window(b.slides(i, i%2 == 0))
	}, b.rotary)
}

// hiddenActivation is the activation of the second and third generation.
func (c *Config) hiddenActivation() string {
	if c.HiddenActivation == "" {
		return "gelu_pytorch_tanh"
	}
	return c.HiddenActivation
}
