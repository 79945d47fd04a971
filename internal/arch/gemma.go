package arch

import (
	"math"

	"ptune/internal/kernels"
)

// loadGemma reads GemmaForCausalLM (Gemma Team 2024): Llama with a GELU gate, norms whose weights are
// stored minus one, and token rows, but not soft prompts, multiplied by √D.
func loadGemma(b *builder) {
	name := b.HiddenAct
	if name == "gelu" { // in the first releases this means the tanh form
		name = "gelu_pytorch_tanh"
	}
	act := b.activation("hidden_act", name)
	b.gemma(act, func(n string, i int, blk *Block) {
		blk.AttnNorm = b.gemmaNorm(n + "input_layernorm")
		blk.MLPNorm = b.gemmaNorm(n + "post_attention_layernorm")
	})
}

// gemma reads what the three generations have in common; fill adds the rest of layer i.
func (b *builder) gemma(act kernels.Activation, fill func(name string, i int, blk *Block)) {
	h := b.common()
	b.refuseIf(b.UseBidirectionalAttention, "use_bidirectional_attention")
	if b.failed() {
		return
	}
	if b.ModelType != "gemma" {
		b.positive("query_pre_attn_scalar", &b.QueryPreAttnScalar)
	}
	b.positive("attn_logit_softcapping", b.AttnLogitSoftcapping)
	b.positive("final_logit_softcapping", b.FinalLogitSoftcapping)
	if b.failed() {
		return
	}
	if b.QueryPreAttnScalar != 0 {
		h.Scale = float32(1 / math.Sqrt(b.QueryPreAttnScalar))
	}
	if b.AttnLogitSoftcapping != nil {
		h.Cap = float32(*b.AttnLogitSoftcapping)
	}
	if b.FinalLogitSoftcapping != nil {
		b.m.Head.Cap = float32(*b.FinalLogitSoftcapping)
	}
	global := b.rotary("full_attention")
	b.embedding("model.", "embed_tokens")
	b.m.Embedding.Scale = float32(math.Sqrt(float64(b.HiddenSize)))
	b.m.Norm = b.gemmaNorm("norm")
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		blk := Block{
			Name:    n,
			Attn:    b.attention(n+"self_attn", h, b.AttentionBias),
			AttnOut: b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), b.AttentionBias),
			MLP:     b.gated(n+"mlp", act, false),
		}
		blk.Attn.Rotary = global
		fill(n, i, &blk)
		b.m.Blocks = append(b.m.Blocks, blk)
	}
	b.outputs(true, false)
}

// gemmaNorm reads an RMS norm whose weights are stored minus one.
func (b *builder) gemmaNorm(name string) *Norm { return oneMore(b.rmsNorm(name, b.HiddenSize)) }

// sandwich reads the norms before and after attention and MLP.
func (b *builder) sandwich(n string, blk *Block) {
	blk.AttnNorm = b.gemmaNorm(n + "input_layernorm")
	blk.AttnPost = b.gemmaNorm(n + "post_attention_layernorm")
	blk.MLPNorm = b.gemmaNorm(n + "pre_feedforward_layernorm")
	blk.MLPPost = b.gemmaNorm(n + "post_feedforward_layernorm")
}
