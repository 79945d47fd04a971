package model

import (
	"fmt"
	"math"
	"slices"
	"strings"

	G "gorgonia.org/gorgonia"

	"ptune/internal/kernels"
	"ptune/internal/ops"
)

// definition is what a file of this package says about one model_type.
type definition struct {
	load     func(b *builder) // reads the weights into b.m, and says what does not fit by b.refuse
	defaults Config           // what transformers takes where config.json is silent
}

// definitions are all model_types that ptune knows.
func definitions() map[string]definition {
	return map[string]definition{
		"bloom":       {loadBloom, Config{LayerNormEpsilon: 1e-5}},
		"falcon":      {loadFalcon, Config{LayerNormEpsilon: 1e-5, MultiQuery: true, ParallelAttn: true, Activation: "gelu", MaxPositionEmbeddings: 2048}},
		"gemma":       {loadGemma, Config{RMSNormEps: 1e-6, HiddenAct: "gelu_pytorch_tanh", HeadDim: 256}},
		"gemma2":      {loadGemma2, Config{RMSNormEps: 1e-6, HeadDim: 256, QueryPreAttnScalar: 256, SlidingWindow: some(4096), AttnLogitSoftcapping: some(50.0), FinalLogitSoftcapping: some(30.0)}},
		"gemma3_text": {loadGemma3, Config{RMSNormEps: 1e-6, HeadDim: 256, QueryPreAttnScalar: 256, SlidingWindow: some(4096), SlidingWindowPattern: 6, RopeTheta: 1e6}},
		"gpt2":        {loadGPT2, Config{LayerNormEpsilon: 1e-5, ActivationFunction: "gelu_new", NPositions: 1024}},
		"gpt_neo":     {loadGPTNeo, Config{LayerNormEpsilon: 1e-5, ActivationFunction: "gelu_new", MaxPositionEmbeddings: 2048, WindowSize: 256}},
		"gpt_neox":    {loadGPTNeoX, Config{LayerNormEps: 1e-5, HiddenAct: "gelu", MaxPositionEmbeddings: 2048, UseParallelResidual: true, AttentionBias: true, PartialRotaryFactor: some(0.25)}},
		"granite":     {loadGranite, Config{RMSNormEps: 1e-6, HiddenAct: "silu", EmbeddingMultiplier: 1, ResidualMultiplier: 1, AttentionMultiplier: 1, LogitsScaling: 1}},
		"llama":       {loadLlama, Config{RMSNormEps: 1e-6, HiddenAct: "silu", MaxPositionEmbeddings: 2048}},
		"mistral":     {loadMistral, Config{RMSNormEps: 1e-6, HiddenAct: "silu", NumKeyValueHeads: 8, SlidingWindow: some(4096)}},
		"olmo2":       {loadOLMo2, Config{RMSNormEps: 1e-5, HiddenAct: "silu", MaxPositionEmbeddings: 2048}},
		"opt":         {loadOPT, Config{ActivationFunction: "relu", MaxPositionEmbeddings: 2048, DoLayerNormBefore: true, EnableBias: true, LayerNormElementwiseAffine: true}},
		"phi":         {loadPhi, Config{LayerNormEps: 1e-5, HiddenAct: "gelu_new", MaxPositionEmbeddings: 2048, PartialRotaryFactor: some(0.5)}},
		"phi3":        {loadPhi3, Config{RMSNormEps: 1e-5, HiddenAct: "silu", MaxPositionEmbeddings: 4096}},
		"qwen2":       {loadQwen2, Config{RMSNormEps: 1e-6, HiddenAct: "silu", SlidingWindow: some(4096), MaxWindowLayers: 28}},
		"qwen3":       {loadQwen3, Config{RMSNormEps: 1e-6, HiddenAct: "silu", HeadDim: 128, SlidingWindow: some(4096), MaxWindowLayers: 28}},
		"smollm3":     {loadSmolLM3, Config{RMSNormEps: 1e-6, HiddenAct: "silu", NumKeyValueHeads: 4, RopeTheta: 2e6, NoRopeLayerInterval: 4}},
		"stablelm":    {loadStableLM, Config{LayerNormEps: 1e-5, HiddenAct: "silu", MaxPositionEmbeddings: 4096, PartialRotaryFactor: some(0.25)}},
		"starcoder2":  {loadStarcoder2, Config{NormEpsilon: 1e-5, HiddenAct: "gelu_pytorch_tanh", NumKeyValueHeads: 2, MaxPositionEmbeddings: 4096, UseBias: true}},
	}
}

func some[T any](x T) *T { return &x }

// define finds the definition of a model_type.
func define(modelType string) (definition, error) {
	all := definitions()
	if d, ok := all[modelType]; ok {
		return d, nil
	}
	var known []string
	for name := range all {
		known = append(known, name)
	}
	slices.Sort(known)
	return definition{}, fmt.Errorf("model_type %q is not one that ptune knows (%s)", modelType, strings.Join(known, ", "))
}

// builder is a model under construction: what config.json says, and the weights.
type builder struct {
	*Config
	*reader
	m *Model
}

// refuse says what the checkpoint asks for and ptune does not have.
func (b *builder) refuse(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf("config.json: "+format, args...))
}

// refuseIf refuses a setting that is on.
func (b *builder) refuseIf(on bool, name string) {
	if on {
		b.refuse("%s is set, which ptune does not have for %s", name, b.ModelType)
	}
}

// failed tells whether something has been refused: sizes cannot be trusted then.
func (b *builder) failed() bool { return len(b.errs) > 0 }

// shape checks and notes the sizes that every model has, and returns its attention's, with head_dim and num_key_value_heads
// filled in. It refuses what is missing or absurd.
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
	b.m.heads = kernels.Heads{Q: n, KV: b.NumKeyValueHeads, Dim: b.HeadDim, Scale: float32(1 / math.Sqrt(float64(b.HeadDim)))}
	b.m.Hidden, b.m.layers, b.m.MaxPositions = h, l, b.MaxPositionEmbeddings
	return b.m.heads
}

// common is shape for the checkpoints that use Llama's names.
func (b *builder) common() kernels.Heads {
	return b.shape("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", b.HiddenSize, b.IntermediateSize, b.NumHiddenLayers, b.NumAttentionHeads)
}

// positive refuses a number that is there and not above zero.
func (b *builder) positive(name string, x *float64) {
	if x != nil && !(*x > 0) {
		b.refuse("%s is %g, want a number above zero", name, *x)
	}
}

// activation is the named activation.
func (b *builder) activation(key, name string) kernels.Activation {
	act, err := kernels.ActivationNamed(name)
	if err != nil {
		b.refuse("%s: %v", key, err)
	}
	return act
}

// layer is the prefix of a layer's names.
func layer(format string, i int) string { return fmt.Sprintf(format, i) }

// rmsNorm is an RMS norm of n values.
func (b *builder) rmsNorm(name string, n int) ops.Norm {
	return ops.Norm{Name: name, Weight: b.vector(name+".weight", n), Eps: float32(b.RMSNormEps)}
}

// layerNorm is a layer norm of the hidden width.
func (b *builder) layerNorm(name string, eps float64) ops.Norm {
	return ops.Norm{Name: name, Weight: b.vector(name+".weight", b.m.Hidden), Bias: b.vector(name+".bias", b.m.Hidden), Eps: float32(eps)}
}

// attention has queries, keys and values in matrices of their own, q_proj, k_proj and v_proj under name.
func (b *builder) attention(i int, name string, h kernels.Heads, bias bool) ops.Attention {
	d := b.m.Hidden
	return ops.Attention{Name: name, Layer: i, Heads: h,
		Q: b.linear(name+".q_proj", h.QCols(), d, bias),
		K: b.linear(name+".k_proj", h.KVCols()/2, d, bias),
		V: b.linear(name+".v_proj", h.KVCols()/2, d, bias)}
}

// gated is Llama's MLP: gate_proj, up_proj and down_proj under name.
func (b *builder) gated(name string, act kernels.Activation, bias bool) mlp {
	gate := b.linear(name+".gate_proj", b.IntermediateSize, b.m.Hidden, bias)
	return mlp{Gate: &gate, Up: b.linear(name+".up_proj", b.IntermediateSize, b.m.Hidden, bias), Down: b.linear(name+".down_proj", b.m.Hidden, b.IntermediateSize, bias), Act: act}
}

// part is the outputs from <= o < from+n of a fused matrix.
func (b *builder) part(l ops.Linear, from, n int) ops.Linear {
	if b.failed() { // the matrix may not be what it should
		return ops.Linear{}
	}
	return l.Outputs(from, n)
}

// inRows has queries, keys and values in one matrix, all queries first, then all keys, then all values.
func (b *builder) inRows(i int, name string, h kernels.Heads, qkv ops.Linear) ops.Attention {
	q, kv := h.QCols(), h.KVCols()/2
	return ops.Attention{Name: name, Layer: i, Heads: h, Q: b.part(qkv, 0, q), K: b.part(qkv, q, kv), V: b.part(qkv, q+kv, kv)}
}

// again is a norm that two paths read, for the second of them.
func again(n ops.Norm) ops.Norm {
	n.Name += " again"
	return n
}

// headsInTurn are the columns where each head's query, key and value begin that follow each other head by head.
func headsInTurn(h kernels.Heads) (q, k, v []int) {
	for i := range h.Q {
		at := 3 * i * h.Dim
		q, k, v = append(q, at), append(k, at+h.Dim), append(v, at+2*h.Dim)
	}
	return q, k, v
}

// embedding reads the table of tokens, whose place says whether all names begin with prefix.
func (b *builder) embedding(prefix, name string) {
	b.under(prefix, name+".weight")
	b.m.embed.Tokens = b.matrix(name+".weight", b.VocabSize, b.m.Hidden, false)
}

// outputs makes the head the embedding itself, or lm_head where the checkpoint has one of its own.
func (b *builder) outputs(tied, bias bool) {
	if b.TieWordEmbeddings != nil {
		tied = *b.TieWordEmbeddings
	}
	b.m.head.Weight = b.m.embed.Tokens
	b.prefix = ""
	if !tied {
		b.m.head.Weight = b.matrix("lm_head.weight", b.VocabSize, b.m.Hidden, false)
	}
	if bias {
		b.m.head.Bias = b.vector("lm_head.bias", b.VocabSize)
	}
}

// slides tells whether a layer is one with a window: layer_types says it, or where it is silent, otherwise.
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
		b.refuse("layer_types[%d] is %q, which ptune does not have", i, kind)
	}
	return false
}

// window is the sliding window of a layer if it has one.
func (b *builder) window(slides bool) int {
	if !slides || b.SlidingWindow == nil {
		return 0
	}
	if *b.SlidingWindow < 1 {
		b.refuse("sliding_window is %d, want 1 or more", *b.SlidingWindow)
	}
	return *b.SlidingWindow
}

// decoder is a stack of blocks between the embedding and the head.
type decoder struct {
	EmbedNorm *ops.Norm // of the embedded rows, soft prompts too; nil: none
	Blocks    []block
	Norm      ops.Norm
	Trains    bool // something of it is trained: no way back ends early
}

// hidden adds to g the target rows [Tt, D] as the head reads them, given the embedded rows x [T, D]; prompted tells whether there are
// soft prompts among them.
func (d *decoder) hidden(g *ops.Graph, x *G.Node, prompted bool) *G.Node {
	if d.EmbedNorm != nil {
		x = g.Norm(x, *d.EmbedNorm)
	}
	for i := range d.Blocks {
		b := d.Blocks[i]
		if b.Alone != nil && !prompted {
			b.Attn.Heads.Bias = b.Alone
		}
		want := ops.AllRows
		if i == 0 && len(d.Blocks) > 1 && !d.Trains {
			want = ops.PromptRows // the first layer's way back ends at the soft prompts
		}
		x = b.forward(g, x, want, i == len(d.Blocks)-1)
	}
	return g.Norm(x, d.Norm)
}

// block is one layer: x + attention(norm x), and to that + mlp(norm of it).
type block struct {
	Name     string
	AttnNorm ops.Norm // before the attention; without a Weight there is none
	Attn     ops.Attention
	AttnOut  ops.Linear
	AttnPost *ops.Norm // of the attention's result, before it joins; nil: none
	MLPNorm  ops.Norm
	MLP      mlp
	MLPPost  *ops.Norm
	Parallel bool           // the MLP reads x itself: x + attention(norm x) + mlp(norm x)
	Alone    *kernels.ALiBi // the attention's biases where there is no soft prompt; nil: the same
	Residual float32        // both results are multiplied by it before they join; 0: they are not
}

// forward is the block of x [T, D]; the last one goes on with the target rows only.
func (b *block) forward(g *ops.Graph, x *G.Node, want ops.Rows, last bool) *G.Node {
	attn := b.Attn
	attn.Want, attn.Targets = want, last

	h, skip := g.Fork(x, b.AttnNorm)
	y := b.join(g, g.Linear(g.Attend(h, &attn), b.AttnOut), b.AttnPost, "attn")
	if b.Parallel {
		beside := g.Beside(skip, last)
		z := b.join(g, b.MLP.forward(g, g.Norm(beside, b.MLPNorm), b.Name), b.MLPPost, "mlp")
		return g.JoinBoth(skip, y, beside, z, last)
	}
	x = g.Join(skip, y, last)

	h, skip = g.Fork(x, b.MLPNorm)
	return g.Join(skip, b.join(g, b.MLP.forward(g, h, b.Name), b.MLPPost, "mlp"), false)
}

// join is what comes of a result before it joins the residual stream.
func (b *block) join(g *ops.Graph, y *G.Node, post *ops.Norm, name string) *G.Node {
	if post != nil {
		y = g.Norm(y, *post)
	}
	if b.Residual != 0 {
		y = g.Scale(y, b.Residual, b.Name+name+".residual")
	}
	return y
}

// mlp is down(act(up x)), or with a gate down(act(gate x) up x).
type mlp struct {
	Gate     *ops.Linear
	Up, Down ops.Linear
	Act      kernels.Activation
}

func (m *mlp) forward(g *ops.Graph, h *G.Node, name string) *G.Node {
	if m.Gate != nil {
		return g.Linear(g.Gated(g.Again(g.Linear(h, *m.Gate, m.Up)), m.Act, name+"mlp.act"), m.Down)
	}
	return g.Linear(g.Act(g.Again(g.Linear(h, m.Up)), m.Act, name+"mlp.act"), m.Down)
}
