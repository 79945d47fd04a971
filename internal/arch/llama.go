package arch

// loadLlama reads LlamaForCausalLM (Touvron et al. 2023): RMS norms before attention and MLP, rotary
// positions, grouped-query attention and a SwiGLU MLP. TinyLlama and SmolLM2 are of this architecture.
func loadLlama(b *builder) {
	b.llama(llamaParts{QKVBias: b.AttentionBias, OutBias: b.AttentionBias, MLPBias: b.MLPBias})
}

// llamaParts is what differs between Llama's descendants.
type llamaParts struct {
	QKVBias, OutBias, MLPBias bool
	QKNorm                    bool                 // each head's queries and keys are normed
	Window                    func(layer int) int  // nil: none
	Rotary                    func(layer int) bool // nil: all layers have rotary positions
	Scale                     float32              // of q·k; 0: 1/√head_dim
	Residual                  float32
	Tied                      bool // if config.json has no tie_word_embeddings
}

// llama reads a checkpoint with Llama's names.
func (b *builder) llama(p llamaParts) {
	h := b.common()
	rotary, act := b.rotary(""), b.activation("hidden_act", b.HiddenAct)
	if b.failed() {
		return
	}
	if p.Scale != 0 {
		h.Scale = p.Scale
	}
	b.embedding("model.", "embed_tokens")
	b.m.Norm = b.rmsNorm("norm", b.HiddenSize)
	for i := range b.NumHiddenLayers {
		n := layer("layers.%d.", i)
		attn := b.attention(n+"self_attn", h, p.QKVBias)
		if p.Window != nil {
			attn.Heads.Window = p.Window(i)
		}
		if p.Rotary == nil || p.Rotary(i) {
			attn.Rotary = rotary
		}
		if p.QKNorm {
			attn.QNorm, attn.KNorm = b.headNorms(n+"self_attn", h.Dim, h.Dim)
		}
		b.m.Blocks = append(b.m.Blocks, Block{
			Name:     n,
			AttnNorm: b.rmsNorm(n+"input_layernorm", b.HiddenSize),
			Attn:     attn,
			AttnOut:  b.linear(n+"self_attn.o_proj", b.HiddenSize, h.QCols(), p.OutBias),
			MLPNorm:  b.rmsNorm(n+"post_attention_layernorm", b.HiddenSize),
			MLP:      b.gated(n+"mlp", act, p.MLPBias),
			Residual: p.Residual,
		})
	}
	b.outputs(p.Tied, false)
}

// headNorms reads q_norm and k_norm of q and k values under name.
func (b *builder) headNorms(name string, q, k int) (qNorm, kNorm *Norm) {
	return b.rmsNorm(name+".q_norm", q), b.rmsNorm(name+".k_norm", k)
}

// oneMore adds one to a norm's weights, which Gemma's checkpoints store minus one, and returns it.
func oneMore(n *Norm) *Norm {
	for i := range n.Weight {
		n.Weight[i]++
	}
	return n
}
