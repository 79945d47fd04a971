package model

import (
	G "gorgonia.org/gorgonia"

	"ptune/internal/arch"
	"ptune/internal/ops"
)

// This file interprets the description of a base model (package arch) as a gorgonia graph. What an
// attached adapter trains is looked up here, by the description's linear or norm.

// hidden adds to g the decoder over the embedded rows x [T, D] and returns the target rows [Tt, D]
// as the head reads them. prompted tells whether there are soft prompts among the rows.
func (m *Model) hidden(g *ops.Graph, x *G.Node, prompted bool) *G.Node {
	if m.EmbedNorm != nil {
		x = g.Norm(x, m.norm(m.EmbedNorm))
	}
	last := len(m.Blocks) - 1
	for i := range m.Blocks {
		b := &m.Blocks[i]
		attn := m.attention(&b.Attn, b.Name+"attn", i)
		if b.Attn.NoPromptBias != nil && !prompted {
			attn.Heads.Bias = b.Attn.NoPromptBias
		}
		if i == 0 && last > 0 && m.adapter == nil {
			attn.GradRows = ops.PromptRows // below the first layer only the soft prompts are trained
		}
		attn.Targets = i == last
		x = m.block(g, x, b, attn)
	}
	return g.Norm(x, m.norm(m.Norm))
}

// block returns the block's result for x [T, D], or for the target rows [Tt, D] if attn.Targets.
func (m *Model) block(g *ops.Graph, x *G.Node, b *arch.Block, attn *ops.Attention) *G.Node {
	attnNorm, mlpNorm := m.normOr(b.AttnNorm, b.Name+"attn"), m.normOr(b.MLPNorm, b.Name+"mlp")
	if b.MLPNorm != nil && b.MLPNorm == b.AttnNorm {
		mlpNorm.Name += " for the MLP" // names of nodes are unique
	}
	h, skip := g.Fork(x, attnNorm)
	y := m.join(g, g.Linear(g.Attend(h, attn), m.linear(b.AttnOut)), b.AttnPost, b, "attn")
	if b.Parallel {
		second := g.SecondPath(skip, attn.Targets)
		z := m.join(g, m.mlp(g, g.Norm(second, mlpNorm), b), b.MLPPost, b, "mlp")
		return g.JoinBoth(skip, y, second, z, attn.Targets)
	}
	x = g.Join(skip, y, attn.Targets)

	h, skip = g.Fork(x, mlpNorm)
	return g.Join(skip, m.join(g, m.mlp(g, h, b), b.MLPPost, b, "mlp"), false)
}

// join returns what is added to the residual stream for a result y.
func (m *Model) join(g *ops.Graph, y *G.Node, post *arch.Norm, b *arch.Block, name string) *G.Node {
	if post != nil {
		y = g.Norm(y, m.norm(post))
	}
	if b.Residual != 0 {
		y = g.Scale(y, b.Residual, b.Name+name+".residual")
	}
	return y
}

// mlp returns the MLP's result for the normed rows h.
func (m *Model) mlp(g *ops.Graph, h *G.Node, b *arch.Block) *G.Node {
	x, name := &b.MLP, b.Name+"mlp.act"
	if x.Gate != nil {
		h = g.Recomputable(g.Linear(h, m.linear(x.Gate), m.linear(x.Up)))
		return g.Linear(g.Gated(h, x.Act, name), m.linear(x.Down))
	}
	return g.Linear(g.Act(g.Recomputable(g.Linear(h, m.linear(x.Up))), x.Act, name), m.linear(x.Down))
}

// attention returns the operator of a layer's attention. Its nodes' names begin with name.
func (m *Model) attention(a *arch.Attention, name string, layer int) *ops.Attention {
	o := &ops.Attention{Name: name, Layer: layer, Heads: a.Heads, Rotary: a.Rotary}
	if f := a.Fused; f != nil {
		o.Fused = &ops.Fused{Linear: m.linear(f.Linear), Q: f.Q, K: f.K, V: f.V}
	} else {
		o.Q, o.K, o.V = m.linear(a.Q), m.linear(a.K), m.linear(a.V)
	}
	if a.QNorm != nil {
		o.QNorm, o.KNorm = new(m.norm(a.QNorm)), new(m.norm(a.KNorm))
	}
	return o
}

// linear is the operator of l, with what the attached adapter trains of it or beside it.
func (m *Model) linear(l *arch.Linear) ops.Linear {
	o := ops.Linear{Weight: l.Weight, Bias: l.Bias}
	if a := m.adapter; a != nil {
		if trained, ok := a.Linears[l]; ok {
			o = trained
		}
		o.LoRA = a.LoRAs[l]
	}
	return o
}

// norm returns the operator of n, with what the attached adapter trains of it.
func (m *Model) norm(n *arch.Norm) ops.Norm {
	if a := m.adapter; a != nil {
		if trained, ok := a.Norms[n]; ok {
			return trained
		}
	}
	return ops.Norm{Name: n.Name, Weight: n.Weight, Bias: n.Bias, Eps: n.Eps}
}

// normOr is norm, or if n is nil the identity under that name.
func (m *Model) normOr(n *arch.Norm, name string) ops.Norm {
	if n == nil {
		return ops.Norm{Name: name + " without norm"}
	}
	return m.norm(n)
}

// embedding returns the operator of the embedding, with what the attached adapter trains of it.
func (m *Model) embedding() ops.Embedding {
	if a := m.adapter; a != nil && a.Embedding != nil {
		return *a.Embedding
	}
	return m.baseEmbedding()
}

// baseEmbedding is the operator of the frozen embedding.
func (m *Model) baseEmbedding() ops.Embedding {
	e := &m.Embedding
	return ops.Embedding{
		Tokens: e.Tokens, Positions: e.Positions, Offset: e.Offset, Scale: e.Scale, All: e.All,
	}
}

// head returns the operator of the head.
func (m *Model) head() ops.Head {
	return ops.Head{Linear: m.linear(&m.Head.Linear), Scale: m.Head.Scale, Cap: m.Head.Cap}
}
