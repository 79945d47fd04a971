package arch

import "ptune/internal/kernels"

// loadGemma3 reads Gemma3ForCausalLM (Gemma Team 2025), the text model: Gemma 2 with normed queries and
// keys instead of caps, five layers with a window for one without, and another rotary base in the layers
// with a window.
func loadGemma3(b *builder) {
	if b.SlidingWindowPattern < 1 {
		b.refuse("sliding_window_pattern is %d, want 1 or more", b.SlidingWindowPattern)
		return
	}
	var local *kernels.Rotary
	act := b.activation("hidden_activation", b.hiddenActivation())
	b.gemma(act, func(n string, i int, blk *Block) {
		b.sandwich(n, blk)
		if local == nil {
			local = b.rotary("sliding_attention")
		}
		if b.slides(i, (i+1)%b.SlidingWindowPattern != 0) {
			blk.Attn.Heads.Window, blk.Attn.Rotary = b.window(true), local
		}
		q, k := b.headNorms(n+"self_attn", b.HeadDim, b.HeadDim)
		blk.Attn.QNorm, blk.Attn.KNorm = oneMore(q), oneMore(k)
	})
}
