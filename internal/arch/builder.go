package arch

import (
	"fmt"
	"math"

	"ptune/internal/kernels"
)

// builder builds a model from config.json and the weights. The loaders are functions of it.
type builder struct {
	*Config
	*reader
	m *Model
}

// refuse reports a setting of config.json that ptune does not support.
func (b *builder) refuse(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf("config.json: "+format, args...))
}

// refuseIf reports a setting that is on.
func (b *builder) refuseIf(on bool, name string) {
	if on {
		b.refuse("%s is set, which ptune does not support for %s", name, b.ModelType)
	}
}

// failed reports whether something has been refused. Then sizes cannot be trusted.
func (b *builder) failed() bool { return len(b.errs) > 0 }

// shape checks the sizes that every model has, sets those of the model and returns its heads. It fills
// in head_dim and num_key_value_heads. hidden, inner, layers and heads are the keys of h, i, l and n.
func (b *builder) shape(hidden, inner, layers, heads string, h, i, l, n int) kernels.Heads {
	b.sizes(map[string]int{"vocab_size": b.VocabSize, hidden: h, inner: i, layers: l, heads: n})
	if b.failed() {
		return kernels.Heads{}
	}
	if b.NumKeyValueHeads == 0 {
		b.NumKeyValueHeads = n
	}
	if b.HeadDim == 0 {
		if h%n != 0 {
			b.refuse("%s (%d) must be divisible by %s (%d)", hidden, h, heads, n)
			return kernels.Heads{}
		}
		b.HeadDim = h / n
	}
	switch {
	case b.NumKeyValueHeads < 1 || n%b.NumKeyValueHeads != 0:
		b.refuse("%s (%d) must be divisible by num_key_value_heads (%d)", heads, n, b.NumKeyValueHeads)
	case b.MaxPositionEmbeddings < 0:
		b.refuse("max_position_embeddings is %d", b.MaxPositionEmbeddings)
	case b.HeadDim < 1 || b.HeadDim > maxWidth:
		b.refuse("head_dim is %d, want 1 to %d", b.HeadDim, maxWidth)
	}
	b.m.Heads = kernels.Heads{Q: n, KV: b.NumKeyValueHeads, Dim: b.HeadDim,
		Scale: float32(1 / math.Sqrt(float64(b.HeadDim)))}
	b.m.Hidden, b.m.MaxPositions = h, b.MaxPositionEmbeddings
	return b.m.Heads
}

// common is shape for checkpoints with Llama's names.
func (b *builder) common() kernels.Heads {
	return b.shape("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
		b.HiddenSize, b.IntermediateSize, b.NumHiddenLayers, b.NumAttentionHeads)
}

// positive refuses a number that is not above zero. nil passes.
func (b *builder) positive(name string, x *float64) {
	if x != nil && !(*x > 0) {
		b.refuse("%s is %g, want a number above zero", name, *x)
	}
}

// activation returns the activation of that name, the value of key.
func (b *builder) activation(key, name string) kernels.Activation {
	act, err := kernels.ActivationNamed(name)
	if err != nil {
		b.refuse("%s: %v", key, err)
	}
	return act
}

// layer returns what the names of layer i's weights begin with.
func layer(format string, i int) string { return fmt.Sprintf(format, i) }

// rmsNorm reads an RMS norm of n values.
func (b *builder) rmsNorm(name string, n int) *Norm {
	return &Norm{Name: name, Weight: b.vector(name+".weight", n), Eps: float32(b.RMSNormEps)}
}

// layerNorm reads a layer norm of the hidden width.
func (b *builder) layerNorm(name string, eps float64) *Norm {
	return &Norm{Name: name, Weight: b.vector(name+".weight", b.m.Hidden),
		Bias: b.vector(name+".bias", b.m.Hidden), Eps: float32(eps)}
}

// attention reads queries, keys and values in separate matrices: q_proj, k_proj and v_proj under name.
func (b *builder) attention(name string, h kernels.Heads, bias bool) Attention {
	d := b.m.Hidden
	return Attention{Heads: h,
		Q: b.linear(name+".q_proj", h.QCols(), d, bias),
		K: b.linear(name+".k_proj", h.KVCols()/2, d, bias),
		V: b.linear(name+".v_proj", h.KVCols()/2, d, bias)}
}

// mlp reads an MLP without a gate: up maps d values to inner, down maps them back.
func (b *builder) mlp(up, down string, d, inner int, act kernels.Activation, bias bool) MLP {
	return MLP{Act: act, Up: b.linear(up, inner, d, bias), Down: b.linear(down, d, inner, bias)}
}

// gated reads Llama's MLP: gate_proj, up_proj and down_proj under name.
func (b *builder) gated(name string, act kernels.Activation, bias bool) MLP {
	return MLP{Act: act,
		Gate: b.linear(name+".gate_proj", b.IntermediateSize, b.m.Hidden, bias),
		Up:   b.linear(name+".up_proj", b.IntermediateSize, b.m.Hidden, bias),
		Down: b.linear(name+".down_proj", b.m.Hidden, b.IntermediateSize, bias)}
}

// outRange returns the outputs from <= o < from+n of a fused matrix.
func (b *builder) outRange(l *Linear, from, n int) *Linear {
	if b.failed() { // the matrix can have another shape
		return &Linear{}
	}
	return l.Outputs(from, n)
}

// inRows splits a matrix that makes all queries, then all keys, then all values.
func (b *builder) inRows(h kernels.Heads, qkv *Linear) Attention {
	q, kv := h.QCols(), h.KVCols()/2
	return Attention{Heads: h,
		Q: b.outRange(qkv, 0, q), K: b.outRange(qkv, q, kv), V: b.outRange(qkv, q+kv, kv)}
}

// headByHead returns the outputs at which each head's query, key and value begin in a matrix that makes
// query, key and value of the first head, then of the second, and so on.
func headByHead(h kernels.Heads) (q, k, v []int) {
	for i := range h.Q {
		at := 3 * i * h.Dim
		q, k, v = append(q, at), append(k, at+h.Dim), append(v, at+2*h.Dim)
	}
	return q, k, v
}

// embedding reads the table of tokens. Its name decides whether all names but the head's begin with
// prefix.
func (b *builder) embedding(prefix, name string) {
	b.under(prefix, name+".weight")
	b.m.Embedding.Tokens = b.matrix(name+".weight", b.VocabSize, b.m.Hidden, false)
}

// outputs sets the head: the embedding if it is tied, else lm_head. tied is for a config.json without
// tie_word_embeddings.
func (b *builder) outputs(tied, bias bool) {
	if b.TieWordEmbeddings != nil {
		tied = *b.TieWordEmbeddings
	}
	b.m.Head.Weight = b.m.Embedding.Tokens
	b.atTop("lm_head.weight")
	if !tied {
		b.m.Head.Weight = b.matrix("lm_head.weight", b.VocabSize, b.m.Hidden, false)
	}
	if bias {
		b.m.Head.Bias = b.vector("lm_head.bias", b.VocabSize)
	}
}

// slides reports whether a layer has a sliding window. otherwise is for a config.json without
// layer_types.
func (b *builder) slides(i int, otherwise bool) bool {
	if len(b.LayerTypes) == 0 {
		return otherwise
	}
	if i >= len(b.LayerTypes) {
		b.refuse("layer_types has %d entries, there are more layers", len(b.LayerTypes))
		return false
	}
	switch kind := b.LayerTypes[i]; kind {
	case "sliding_attention":
		return true
	case "full_attention":
	default:
		b.refuse("layer_types[%d] is %q, which ptune does not support", i, kind)
	}
	return false
}

// window returns the sliding window of a layer that slides, 0 if there is none.
func (b *builder) window(slides bool) int {
	if !slides || b.SlidingWindow == nil {
		return 0
	}
	if *b.SlidingWindow < 1 {
		b.refuse("sliding_window is %d, want 1 or more", *b.SlidingWindow)
	}
	return *b.SlidingWindow
}
