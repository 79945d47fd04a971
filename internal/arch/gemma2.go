package arch

// loadGemma2 reads Gemma2ForCausalLM (Gemma Team 2024): Gemma with norms also after attention and MLP, a
// window in every second layer, and a tanh cap on scores and logits.
func loadGemma2(b *builder) {
	act := b.activation("hidden_activation", b.hiddenActivation())
	b.gemma(act, func(n string, i int, blk *Block) {
		b.sandwich(n, blk)
		blk.Attn.Heads.Window = b.window(b.slides(i, i%2 == 0))
	})
}

// hiddenActivation returns the activation of the second and third generation.
func (c *Config) hiddenActivation() string {
	if c.HiddenActivation == "" {
		return "gelu_pytorch_tanh"
	}
	return c.HiddenActivation
}
