package gguf

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/tensorfile"
)

// architecture is how llama.cpp's converter writes the checkpoints of a model_type (its folder
// conversion): what differs from a checkpoint of transformers, so that it can be undone.
type architecture struct {
	modelType string
	// settings adds to config.json what is not common to all.
	settings func(m *metadata, config map[string]any)
	names    map[string]string // of the modules that common does not have or names differently
	pairs    bool              // rows of queries and keys are stored in pairs (LlamaModel.permute)
	onePlus  bool              // norms are stored plus one
}

// architectures returns the architectures by general.architecture.
func architectures() map[string]architecture {
	sandwich := map[string]string{
		"post_attention_norm": "post_attention_layernorm",
		"ffn_norm":            "pre_feedforward_layernorm",
		"post_ffw_norm":       "post_feedforward_layernorm",
	}
	return map[string]architecture{
		// Files of Mistral have this name, too. llama.cpp leaves their window out.
		"llama":  {modelType: "llama", pairs: true, settings: llamaSettings},
		"gemma":  {modelType: "gemma", onePlus: true, settings: gemmaSettings},
		"gemma2": {modelType: "gemma2", onePlus: true, settings: gemmaSettings, names: sandwich},
		"gemma3": {modelType: "gemma3_text", onePlus: true, settings: gemmaSettings, names: sandwich},
		"qwen2":  {modelType: "qwen2"},
		"qwen3":  {modelType: "qwen3"},
		"phi3": {modelType: "phi3", settings: phi3Settings, names: map[string]string{
			"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}},
		"granite": {modelType: "granite", pairs: true, settings: graniteSettings},
		"smollm3": {modelType: "smollm3", pairs: true, settings: llamaSettings},
		"olmo2": {modelType: "olmo2", names: map[string]string{
			"post_attention_norm": "post_attention_layernorm",
			"post_ffw_norm":       "post_feedforward_layernorm"}},
		"starcoder2": {modelType: "starcoder2", settings: starcoder2Settings, names: map[string]string{
			"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}},
	}
}

// find returns the architecture of that name.
func find(name string) (architecture, error) {
	all := architectures()
	a, ok := all[name]
	if !ok {
		return a, fmt.Errorf("its architecture is %q; of GGUF files ptune reads %s", name,
			strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return a, nil
}

// common are the modules of a layer in llama.cpp and in transformers.
var common = map[string]string{
	"attn_norm":   "input_layernorm",
	"attn_q":      "self_attn.q_proj",
	"attn_k":      "self_attn.k_proj",
	"attn_v":      "self_attn.v_proj",
	"attn_output": "self_attn.o_proj",
	"attn_q_norm": "self_attn.q_norm",
	"attn_k_norm": "self_attn.k_norm",
	"ffn_norm":    "post_attention_layernorm",
	"ffn_gate":    "mlp.gate_proj",
	"ffn_up":      "mlp.up_proj",
	"ffn_down":    "mlp.down_proj",
}

// outer are the modules outside of the layers.
var outer = map[string]string{
	"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
}

// factors are the tensors of rotary positions, which config.json has instead.
var factors = map[string]bool{
	"rope_freqs.weight": true, "rope_factors_long.weight": true, "rope_factors_short.weight": true,
}

// rename gives the tensors the names of transformers and undoes what the converter changed.
func (a *architecture) rename(m *metadata, d *tensorfile.Dir) error {
	return d.Change(func(t tensorfile.Tensor) (tensorfile.Tensor, error) {
		if factors[t.Name] {
			return tensorfile.Tensor{}, nil
		}
		old := t.Name
		name, ok := a.name(old)
		if !ok {
			return t, fmt.Errorf("tensor %.80q has no place in a model of the architecture %q", old, m.arch)
		}
		t.Name = name
		var err error
		if a.pairs && (strings.Contains(old, ".attn_q.") || strings.Contains(old, ".attn_k.")) {
			t, err = m.inPairs(t)
		}
		if a.onePlus && strings.HasSuffix(old, "norm.weight") {
			t, err = changed(t, func(values []float32) {
				for i := range values {
					values[i]--
				}
			})
		}
		if err != nil {
			err = fmt.Errorf("tensor %.80q: %w", old, err)
		}
		return t, err
	})
}

// name returns the name in transformers of a tensor.
func (a *architecture) name(gguf string) (name string, ok bool) {
	at := strings.LastIndexByte(gguf, '.')
	if at < 0 {
		return "", false
	}
	module, kind := gguf[:at], gguf[at:]
	if kind != ".weight" && kind != ".bias" {
		return "", false
	}
	if name, ok := outer[module]; ok {
		return name + kind, true
	}
	parts := strings.SplitN(module, ".", 3)
	if len(parts) != 3 || parts[0] != "blk" {
		return "", false
	}
	if n, err := strconv.Atoi(parts[1]); err != nil || strconv.Itoa(n) != parts[1] {
		return "", false
	}
	name, ok = a.names[parts[2]]
	if !ok {
		name, ok = common[parts[2]]
	}
	return "model.layers." + parts[1] + "." + name + kind, ok
}

// inPairs marks a matrix of queries or keys whose rows are stored in pairs, or puts its bias in order.
func (m *metadata) inPairs(t tensorfile.Tensor) (tensorfile.Tensor, error) {
	dim := m.headDim()
	if dim < 2 || dim%2 != 0 || len(t.Shape) == 0 || t.Shape[0]%dim != 0 {
		return t, fmt.Errorf("it has the shape %v, which is not of heads of %d values", t.Shape, dim)
	}
	if len(t.Shape) > 1 {
		t.Pairs = dim
		return t, nil
	}
	return changed(t, func(values []float32) {
		head := make([]float32, dim)
		for ; len(values) > 0; values = values[dim:] {
			copy(head, values)
			for i := range dim / 2 {
				values[i], values[dim/2+i] = head[2*i], head[2*i+1]
			}
		}
	})
}

// changed returns a copy of an F32 vector that change has changed.
func changed(t tensorfile.Tensor, change func(values []float32)) (tensorfile.Tensor, error) {
	values, err := t.Values()
	if err != nil {
		return t, err
	}
	change(values)
	return tensorfile.Floats(t.Name, t.Shape, values), nil
}

// metadata reads what config.json says from the metadata of a file and collects what is missing.
type metadata struct {
	*tensorfile.GGUF
	arch string
	errs []error
}

// key returns a key of the architecture.
func (m *metadata) key(name string) string { return m.arch + "." + name }

// need returns a whole number that the file must have. A list of one number for all layers is that
// number.
func (m *metadata) need(name string) int64 {
	n, ok := m.number(name)
	if !ok {
		m.errs = append(m.errs, fmt.Errorf("it has no %s, or it is not one whole number", m.key(name)))
	}
	return n
}

// number returns a whole number if the file has it.
func (m *metadata) number(name string) (int64, bool) {
	if n, ok := m.Int(m.key(name)); ok {
		return n, true
	}
	list, ok := m.Ints(m.key(name))
	if !ok || len(list) == 0 || slices.Min(list) != slices.Max(list) {
		return 0, false
	}
	return list[0], true
}

// copy puts a number of the file into config.json under another name.
func (m *metadata) copy(config map[string]any, name, key string) {
	if v, ok := m.Float(m.key(name)); ok {
		config[key] = finite(v)
	}
}

// finite returns a number that JSON can write: what is not finite becomes 0, which loaders refuse.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// headDim returns the values of a head.
func (m *metadata) headDim() int {
	if n, ok := m.number("attention.key_length"); ok {
		return int(n)
	}
	heads, width := m.need("attention.head_count"), m.need("embedding_length")
	if heads < 1 {
		return 0
	}
	return int(width / heads)
}

// config returns config.json.
func (a *architecture) config(m *metadata) map[string]any {
	heads := m.need("attention.head_count")
	c := map[string]any{
		"model_type":              a.modelType,
		"hidden_size":             m.need("embedding_length"),
		"intermediate_size":       m.need("feed_forward_length"),
		"num_hidden_layers":       m.need("block_count"),
		"num_attention_heads":     heads,
		"num_key_value_heads":     heads,
		"head_dim":                m.headDim(),
		"max_position_embeddings": m.need("context_length"),
	}
	if _, ok := m.Meta[m.key("attention.head_count_kv")]; ok {
		c["num_key_value_heads"] = m.need("attention.head_count_kv")
	}
	if t, ok := m.Weights.Tensor("token_embd.weight"); ok && len(t.Shape) > 0 {
		c["vocab_size"] = t.Shape[0]
	}
	_, head := m.Weights.Tensor("output.weight")
	c["tie_word_embeddings"] = !head
	m.copy(c, "attention.layer_norm_rms_epsilon", "rms_norm_eps")
	m.copy(c, "rope.freq_base", "rope_theta")
	if n, ok := m.number("rope.dimension_count"); ok && m.headDim() > 0 && int(n) != m.headDim() {
		c["partial_rotary_factor"] = float64(n) / float64(m.headDim())
	}
	m.scaling(c)
	var ends []int64
	for _, name := range []string{"eos", "eot"} {
		if id, ok := m.Int("tokenizer.ggml." + name + "_token_id"); ok && !slices.Contains(ends, id) {
			ends = append(ends, id)
		}
	}
	if len(ends) > 0 {
		c["eos_token_id"] = ends
	}
	if a.settings != nil {
		a.settings(m, c)
	}
	return c
}

// scaling adds rope_scaling.
func (m *metadata) scaling(c map[string]any) {
	if t, ok := m.Weights.Tensor("rope_freqs.weight"); ok {
		// Llama 3.1: what each angle is divided by. transformers writes such numbers for LongRoPE.
		numbers, err := t.Values()
		if err != nil {
			m.errs = append(m.errs, fmt.Errorf("tensor %q: %w", t.Name, err))
		}
		c["rope_scaling"] = map[string]any{"rope_type": "longrope", "short_factor": numbers,
			"attention_factor": 1, "original_max_position_embeddings": c["max_position_embeddings"]}
		return
	}
	kind, _ := m.String(m.key("rope.scaling.type"))
	s := map[string]any{"rope_type": kind}
	m.copy(s, "rope.scaling.factor", "factor")
	m.copy(s, "rope.scaling.original_context_length", "original_max_position_embeddings")
	m.copy(s, "rope.scaling.yarn_beta_fast", "beta_fast")
	m.copy(s, "rope.scaling.yarn_beta_slow", "beta_slow")
	switch kind {
	case "", "none":
	case "linear", "yarn":
		c["rope_scaling"] = s
	case "longrope": // phi3Settings
	default:
		m.errs = append(m.errs, fmt.Errorf("%s is %q, which ptune does not support",
			m.key("rope.scaling.type"), kind))
	}
}

func llamaSettings(m *metadata, c map[string]any) {
	_, bias := m.Weights.Tensor("blk.0.attn_q.bias")
	c["attention_bias"] = bias
	_, bias = m.Weights.Tensor("blk.0.ffn_up.bias")
	c["mlp_bias"] = bias
	if n, ok := m.Int(m.key("expert_count")); ok && n > 0 {
		m.errs = append(m.errs, fmt.Errorf("it is a mixture of %d experts, which ptune does not support", n))
	}
}

func graniteSettings(m *metadata, c map[string]any) {
	llamaSettings(m, c)
	m.copy(c, "attention.scale", "attention_multiplier")
	m.copy(c, "embedding_scale", "embedding_multiplier")
	m.copy(c, "residual_scale", "residual_multiplier")
	m.copy(c, "logit_scale", "logits_scaling")
}

func starcoder2Settings(m *metadata, c map[string]any) {
	m.copy(c, "attention.layer_norm_epsilon", "norm_epsilon")
	_, bias := m.Weights.Tensor("blk.0.attn_q.bias")
	c["use_bias"] = bias
}

// gemmaSettings are those of the three generations. The scale of scores is not in the file: llama.cpp
// knows it by the number of layers, and so does this.
func gemmaSettings(m *metadata, c map[string]any) {
	c["hidden_act"], c["hidden_activation"] = "gelu_pytorch_tanh", "gelu_pytorch_tanh"
	m.copy(c, "attn_logit_softcapping", "attn_logit_softcapping")
	m.copy(c, "final_logit_softcapping", "final_logit_softcapping")
	m.copy(c, "attention.sliding_window", "sliding_window")
	if m.arch == "gemma" {
		return
	}
	scale := int64(m.headDim())
	largest := map[string]int64{"gemma2": 46, "gemma3": 62}[m.arch]
	if heads := m.need("attention.head_count"); m.need("block_count") == largest && heads > 0 {
		scale = m.need("embedding_length") / heads
	}
	c["query_pre_attn_scalar"] = scale
	m.copy(c, "rope.freq_base_swa", "rope_local_base_freq")
	key := m.key("attention.sliding_window_pattern")
	if n, ok := m.Int(key); ok {
		c["sliding_window_pattern"] = n
	} else if slides, ok := m.Ints(key); ok {
		kinds := make([]string, len(slides))
		for i, s := range slides {
			kinds[i] = "full_attention"
			if s != 0 {
				kinds[i] = "sliding_attention"
			}
		}
		c["layer_types"] = kinds
	}
}

func phi3Settings(m *metadata, c map[string]any) {
	if n, ok := m.number("attention.sliding_window"); ok && n > 0 {
		c["sliding_window"] = n
	}
	short, ok := m.Weights.Tensor("rope_factors_short.weight")
	if !ok {
		return
	}
	numbers, err := short.Values()
	if err != nil {
		m.errs = append(m.errs, fmt.Errorf("tensor %q: %w", short.Name, err))
	}
	s := map[string]any{"rope_type": "longrope", "short_factor": numbers}
	m.copy(s, "rope.scaling.attn_factor", "attention_factor")
	m.copy(s, "rope.scaling.original_context_length", "original_max_position_embeddings")
	c["rope_scaling"] = s
}
