package model

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// llama is transformers' LlamaForCausalLM (Touvron et al. 2023): RMS norms before each block, rotary positions,
// grouped-query attention and a SwiGLU MLP. SmolLM2 has this shape.
type llama struct {
	Layers []llamaLayer
	Norm   ops.Norm
}

type llamaLayer struct {
	Name                       string
	InputLayernorm             ops.Norm
	SelfAttn                   ops.Attention
	OProj                      ops.Linear
	PostAttentionLayernorm     ops.Norm
	GateProj, UpProj, DownProj ops.Linear
}

func loadLlama(m *Model, c *Config, w *reader) error {
	sizes := map[string]int{"vocab_size": c.VocabSize, "hidden_size": c.HiddenSize, "intermediate_size": c.IntermediateSize,
		"num_hidden_layers": c.NumHiddenLayers, "num_attention_heads": c.NumAttentionHeads}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	if err := c.check(sizes); err != nil {
		return err
	}
	if c.HeadDim == 0 {
		if c.HiddenSize%c.NumAttentionHeads != 0 {
			return fmt.Errorf("config.json: hidden_size (%d) must be divisible by num_attention_heads (%d)", c.HiddenSize, c.NumAttentionHeads)
		}
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	theta, err := c.rope()
	switch {
	case err != nil:
		return err
	case c.NumKeyValueHeads < 1 || c.NumAttentionHeads%c.NumKeyValueHeads != 0:
		return fmt.Errorf("config.json: num_attention_heads (%d) must be divisible by num_key_value_heads (%d)", c.NumAttentionHeads, c.NumKeyValueHeads)
	case c.HeadDim < 2 || c.HeadDim%2 != 0 || c.HeadDim > maxWidth:
		return fmt.Errorf("config.json: head_dim is %d, want an even number", c.HeadDim)
	case c.HiddenAct != "silu":
		return fmt.Errorf("config.json: hidden_act is %q, ptune has silu for llama", c.HiddenAct)
	}
	rotary := kernels.NewRotary(c.HeadDim, theta)
	heads := kernels.Heads{Q: c.NumAttentionHeads, KV: c.NumKeyValueHeads, Dim: c.HeadDim, Scale: float32(1 / math.Sqrt(float64(c.HeadDim)))}
	d, eps := c.HiddenSize, float32(c.RMSNormEps)
	norm := func(name string) ops.Norm { return ops.Norm{Name: name, Weight: w.vector(name+".weight", d), Eps: eps} }

	w.under("model.", "embed_tokens.weight")
	m.Hidden, m.MaxPositions, m.layers, m.heads = d, c.MaxPositionEmbeddings, c.NumHiddenLayers, heads
	m.embed = ops.Embedding{Tokens: w.matrix("embed_tokens.weight", c.VocabSize, d, false)}
	a := &llama{Norm: norm("norm")}
	for i := range c.NumHiddenLayers {
		n := fmt.Sprintf("layers.%d.", i)
		a.Layers = append(a.Layers, llamaLayer{
			Name:           n,
			InputLayernorm: norm(n + "input_layernorm"),
			SelfAttn: ops.Attention{
				Name: n + "self_attn", Layer: i, Heads: heads, Rotary: rotary,
				Q: w.linear(n+"self_attn.q_proj", heads.QCols(), d, c.AttentionBias),
				K: w.linear(n+"self_attn.k_proj", heads.KVCols()/2, d, c.AttentionBias),
				V: w.linear(n+"self_attn.v_proj", heads.KVCols()/2, d, c.AttentionBias),
			},
			OProj:                  w.linear(n+"self_attn.o_proj", d, heads.QCols(), c.AttentionBias),
			PostAttentionLayernorm: norm(n + "post_attention_layernorm"),
			GateProj:               w.linear(n+"mlp.gate_proj", c.IntermediateSize, d, c.MLPBias),
			UpProj:                 w.linear(n+"mlp.up_proj", c.IntermediateSize, d, c.MLPBias),
			DownProj:               w.linear(n+"mlp.down_proj", d, c.IntermediateSize, c.MLPBias),
		})
	}
	m.arch = a
	m.head = ops.Linear{Weight: m.embed.Tokens}
	if c.TieWordEmbeddings == nil || !*c.TieWordEmbeddings { // transformers' default for llama is untied
		w.prefix = ""
		m.head.Weight = w.matrix("lm_head.weight", c.VocabSize, d, false)
	}
	return nil
}

// rope is the rotary base of a checkpoint without position scaling.
func (c *Config) rope() (theta float64, err error) {
	theta = c.RopeTheta
	if p := c.RopeParameters; p != nil {
		if p.RopeType != "" && p.RopeType != "default" {
			return 0, fmt.Errorf("config.json: rope_type is %q, which ptune does not have", p.RopeType)
		}
		if p.RopeTheta != 0 {
			theta = p.RopeTheta
		}
	}
	if s := string(c.RopeScaling); s != "" && s != "null" {
		return 0, fmt.Errorf("config.json: rope_scaling is %s, which ptune does not have", s)
	}
	if theta == 0 {
		theta = 10000
	}
	return theta, nil
}

func (a *llama) hidden(g *ops.Graph, x *G.Node) *G.Node {
	for i := range a.Layers {
		x = a.Layers[i].forward(g, x, wanted(i, len(a.Layers)), i == len(a.Layers)-1)
	}
	return g.Norm(x, a.Norm)
}

// forward is one block of x [T, D]; the last one goes on with the target rows only.
func (l *llamaLayer) forward(g *ops.Graph, x *G.Node, want ops.Rows, last bool) *G.Node {
	attn := l.SelfAttn
	attn.Want, attn.Targets = want, last

	h, skip := g.Fork(x, l.InputLayernorm, want)
	x = g.Join(skip, g.Linear(g.Attend(h, &attn), l.OProj), last)

	h, skip = g.Fork(x, l.PostAttentionLayernorm, ops.AllRows)
	return g.Join(skip, g.Linear(g.SwiGLU(g.Again(g.Linear(h, l.GateProj, l.UpProj)), l.Name+"mlp.act"), l.DownProj), false)
}

// wanted says which rows of layer i's input want a gradient: the first layer's way back ends at the soft prompts.
func wanted(i, layers int) ops.Rows {
	if i == 0 && layers > 1 {
		return ops.PromptRows
	}
	return ops.AllRows
}
