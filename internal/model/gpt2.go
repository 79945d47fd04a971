package model

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// gpt2 is transformers' GPT2LMHeadModel (Radford et al. 2019): learned positions, layer norms before each block, one fused
// query/key/value matrix stored [in, out] as Conv1D does, and a GELU MLP. Its head is the embedding.
type gpt2 struct {
	H   []gpt2Block
	LnF ops.Norm
}

type gpt2Block struct {
	Name           string
	Ln1, Ln2       ops.Norm
	Attn           ops.Attention
	CProj          ops.Linear
	MLPFc, MLPProj ops.Linear
}

func loadGPT2(m *Model, c *Config, w *reader) error {
	err := c.check(map[string]int{"vocab_size": c.VocabSize, "n_embd": c.NEmbd, "n_layer": c.NLayer, "n_head": c.NHead, "n_positions": c.NPositions})
	switch {
	case err != nil:
		return err
	case c.NEmbd%c.NHead != 0:
		return fmt.Errorf("config.json: n_embd (%d) must be divisible by n_head (%d)", c.NEmbd, c.NHead)
	case c.ActivationFunction != "gelu_new" && c.ActivationFunction != "gelu_pytorch_tanh":
		return fmt.Errorf("config.json: activation_function is %q, ptune has gelu_new for gpt2", c.ActivationFunction)
	case c.AddCrossAttention:
		return fmt.Errorf("config.json: add_cross_attention is true, which ptune does not have")
	case c.TieWordEmbeddings != nil && !*c.TieWordEmbeddings:
		return fmt.Errorf("config.json: tie_word_embeddings is false, which ptune does not have for gpt2")
	}
	d, inner, eps := c.NEmbd, 4*c.NEmbd, float32(c.LayerNormEpsilon)
	if c.NInner != nil {
		inner = *c.NInner
	}
	if inner < 1 || inner > maxWidth {
		return fmt.Errorf("config.json: n_inner is %d, want 1 to %d", inner, maxWidth)
	}
	w.under("transformer.", "wte.weight")
	norm := func(name string) ops.Norm {
		return ops.Norm{Name: name, Weight: w.vector(name+".weight", d), Bias: w.vector(name+".bias", d), Eps: eps}
	}
	conv1D := func(name string, in, out int) ops.Linear {
		return ops.Linear{Weight: w.matrix(name+".weight", in, out, true), Bias: w.vector(name+".bias", out)}
	}
	positions := w.matrix("wpe.weight", c.NPositions, d, false)
	m.Hidden, m.MaxPositions, m.layers = d, c.NPositions, c.NLayer
	m.embed = ops.Embedding{Tokens: w.matrix("wte.weight", c.VocabSize, d, false), Positions: &positions}
	m.heads = kernels.Heads{Q: c.NHead, KV: c.NHead, Dim: d / c.NHead, Scale: 1}
	if c.ScaleAttnWeights == nil || *c.ScaleAttnWeights {
		m.heads.Scale = float32(1 / math.Sqrt(float64(m.heads.Dim)))
	}
	a := &gpt2{LnF: norm("ln_f")}
	for i := range c.NLayer {
		n := fmt.Sprintf("h.%d.", i)
		cAttn := conv1D(n+"attn.c_attn", d, 3*d)
		part := func(k int) ops.Linear {
			if len(w.errs) > 0 { // the matrix may not be what it should
				return ops.Linear{}
			}
			return ops.Linear{Weight: cAttn.Weight.OutRange(k*d, d), Bias: cAttn.Bias[k*d : (k+1)*d]}
		}
		heads := m.heads
		if c.ScaleAttnByInverseLayerIdx {
			heads.Scale /= float32(i + 1)
		}
		a.H = append(a.H, gpt2Block{
			Name: n,
			Ln1:  norm(n + "ln_1"), Ln2: norm(n + "ln_2"),
			Attn:    ops.Attention{Name: n + "attn", Layer: i, Heads: heads, Q: part(0), K: part(1), V: part(2)},
			CProj:   conv1D(n+"attn.c_proj", d, d),
			MLPFc:   conv1D(n+"mlp.c_fc", d, inner),
			MLPProj: conv1D(n+"mlp.c_proj", inner, d),
		})
	}
	m.arch, m.head = a, ops.Linear{Weight: m.embed.Tokens}
	return nil
}

func (a *gpt2) hidden(g *ops.Graph, x *G.Node) *G.Node {
	for i := range a.H {
		x = a.H[i].forward(g, x, wanted(i, len(a.H)), i == len(a.H)-1)
	}
	return g.Norm(x, a.LnF)
}

// forward is one block of x [T, D]; the last one goes on with the target rows only.
func (b *gpt2Block) forward(g *ops.Graph, x *G.Node, want ops.Rows, last bool) *G.Node {
	attn := b.Attn
	attn.Want, attn.Targets = want, last

	h, skip := g.Fork(x, b.Ln1, want)
	x = g.Join(skip, g.Linear(g.Attend(h, &attn), b.CProj), last)

	h, skip = g.Fork(x, b.Ln2, ops.AllRows)
	return g.Join(skip, g.Linear(g.GELU(g.Again(g.Linear(h, b.MLPFc)), b.Name+"mlp.act"), b.MLPProj), false)
}
