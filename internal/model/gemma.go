package model

import (
	"math"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// loadGemma reads GemmaForCausalLM (Gemma Team 2024): Llama with a GELU gate, norms whose weights count from one, and the
// embeddings of tokens, not soft prompts, multiplied by √D.
func loadGemma(b *builder) {
	name := b.HiddenAct
	if name == "gelu" { // the first releases say so and mean the tanh form
		name = "gelu_pytorch_tanh"
	}
	act := b.activation("hidden_act", name)
	b.gemma(act, func(n string, i int, blk *block) {
		blk.AttnNorm = b.gemmaNorm(n + "input_layernorm")
		blk.MLPNorm = b.gemmaNorm(n + "post_attention_layernorm")
	}, b.rotary)
}

// gemma reads what the three generations have in common; layer fills in the rest of a block.
func (b *builder) gemma(act kernels.Activation, fill func(name string, i int, blk *block), rotary func(kind string) *kernels.Rotary) {
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
		b.m.head.Cap = float32(*b.FinalLogitSoftcapping)
	}
	global := rotary("full_attention")
	b.embedding("model.", "embed_tokens")
	b.m.embed.Scale = float32(math.Sqrt(float64(b.HiddenSize)))
	d := &decoder{Norm: b.gemmaNorm("norm")}
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		blk := block{
			Name:    n,
			Attn:    b.attention(i, n+"self_attn", h, b.AttentionBias),
			AttnOut: b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), b.AttentionBias),
			MLP:     b.gated(n+"mlp", act, false),
		}
		blk.Attn.Rotary = global
		fill(n, i, &blk)
		d.Blocks = append(d.Blocks, blk)
	}
	b.m.arch = d
	b.outputs(true, false)
}

// gemmaNorm is an RMS norm whose weights count from one.
func (b *builder) gemmaNorm(name string) ops.Norm { return oneMore(b.rmsNorm(name, b.HiddenSize)) }

// sandwich puts norms before and after attention and MLP.
func (b *builder) sandwich(n string, blk *block) {
	blk.AttnNorm, blk.AttnPost = b.gemmaNorm(n+"input_layernorm"), some(b.gemmaNorm(n+"post_attention_layernorm"))
	blk.MLPNorm, blk.MLPPost = b.gemmaNorm(n+"pre_feedforward_layernorm"), some(b.gemmaNorm(n+"post_feedforward_layernorm"))
}
