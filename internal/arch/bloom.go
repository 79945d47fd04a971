package arch

import (
	"cmp"

	"ptune/internal/kernels"
)

// loadBloom reads BloomForCausalLM (Le Scao et al. 2022): positions only as biases of the scores
// (ALiBi), a layer norm of the embedded rows, soft prompts included, and query, key and value head
// by head in one matrix.
func loadBloom(b *builder) {
	d := cmp.Or(b.HiddenSize, b.NEmbed)
	b.NLayer = cmp.Or(b.NLayer, b.NumHiddenLayers) // checkpoints have either name
	b.NHead = cmp.Or(b.NHead, b.NumAttentionHeads)
	b.NumKeyValueHeads, b.HeadDim, b.MaxPositionEmbeddings = 0, 0, 0 // positions have no limit
	h := b.shape("hidden_size", "hidden_size", "n_layer", "n_head", d, d, b.NLayer, b.NHead)
	b.refuseIf(b.ApplyResidualConnectionPostLayernorm, "apply_residual_connection_post_layernorm")
	if b.failed() {
		return
	}
	h.Bias = kernels.NewALiBi(h.Q)
	b.embedding("transformer.", "word_embeddings")
	b.m.EmbedNorm = b.layerNorm("word_embeddings_layernorm", b.LayerNormEpsilon)
	b.m.Norm = b.layerNorm("ln_f", b.LayerNormEpsilon)
	for i := range b.NLayer {
		n := layer("h.%d.", i)
		fused := Fused{Linear: b.linear(n+"self_attention.query_key_value", 3*d, d, true)}
		fused.Q, fused.K, fused.V = headByHead(h)
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.layerNorm(n+"input_layernorm", b.LayerNormEpsilon),
			Attn:     Attention{Heads: h, Fused: &fused},
			AttnOut:  b.linear(n+"self_attention.dense", d, d, true),
			MLPNorm:  b.layerNorm(n+"post_attention_layernorm", b.LayerNormEpsilon),
			MLP: b.mlp(n+"mlp.dense_h_to_4h", n+"mlp.dense_4h_to_h", d, 4*d, kernels.GELUTanh,
				true),
		})
	}
	b.outputs(true, false)
}
