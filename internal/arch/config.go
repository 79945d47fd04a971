package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

// Config has the keys of config.json that ptune reads, under their own names. An architecture reads the
// fields it knows; its definition has transformers' defaults for missing keys.
type Config struct {
	ModelType         string          `json:"model_type"`
	EOSTokenID        ids             `json:"eos_token_id"`
	Quantization      json.RawMessage `json:"quantization_config"`
	TieWordEmbeddings *bool           `json:"tie_word_embeddings"`
	VocabSize         int             `json:"vocab_size"`

	// Sizes.
	HiddenSize            int  `json:"hidden_size"`
	IntermediateSize      int  `json:"intermediate_size"`
	NumHiddenLayers       int  `json:"num_hidden_layers"`
	NumAttentionHeads     int  `json:"num_attention_heads"`
	NumKeyValueHeads      int  `json:"num_key_value_heads"`
	HeadDim               int  `json:"head_dim"`
	MaxPositionEmbeddings int  `json:"max_position_embeddings"`
	NEmbd                 int  `json:"n_embd"` // GPT-2
	NLayer                int  `json:"n_layer"`
	NHead                 int  `json:"n_head"`
	NPositions            int  `json:"n_positions"`
	NInner                *int `json:"n_inner"`
	NumLayers             int  `json:"num_layers"` // GPT-Neo
	NumHeads              int  `json:"num_heads"`
	FFNDim                int  `json:"ffn_dim"`         // OPT
	NEmbed                int  `json:"n_embed"`         // BLOOM, before it was called hidden_size
	NumKVHeads            int  `json:"num_kv_heads"`    // Falcon
	FFNHiddenSize         int  `json:"ffn_hidden_size"` // Falcon
	WordEmbedProjDim      int  `json:"word_embed_proj_dim"`

	// Norms, activations and biases.
	RMSNormEps                 float64 `json:"rms_norm_eps"`
	LayerNormEps               float64 `json:"layer_norm_eps"`
	LayerNormEpsilon           float64 `json:"layer_norm_epsilon"`
	NormEpsilon                float64 `json:"norm_epsilon"`
	LayerNormElementwiseAffine bool    `json:"layer_norm_elementwise_affine"`
	DoLayerNormBefore          bool    `json:"do_layer_norm_before"`
	RemoveFinalLayerNorm       bool    `json:"_remove_final_layer_norm"`
	QKLayernorm                bool    `json:"qk_layernorm"`
	NumLnInParallelAttn        *int    `json:"num_ln_in_parallel_attn"`
	HiddenAct                  string  `json:"hidden_act"`
	HiddenActivation           string  `json:"hidden_activation"`
	ActivationFunction         string  `json:"activation_function"`
	Activation                 string  `json:"activation"`
	AttentionBias              bool    `json:"attention_bias"`
	MLPBias                    bool    `json:"mlp_bias"`
	UseBias                    bool    `json:"use_bias"`
	UseQKVBias                 bool    `json:"use_qkv_bias"`
	EnableBias                 bool    `json:"enable_bias"`
	Bias                       bool    `json:"bias"`

	// Positions.
	RopeTheta                     float64         `json:"rope_theta"`
	RopeScaling                   json.RawMessage `json:"rope_scaling"`
	RopeParameters                json.RawMessage `json:"rope_parameters"` // of transformers 5
	PartialRotaryFactor           *float64        `json:"partial_rotary_factor"`
	OriginalMaxPositionEmbeddings int             `json:"original_max_position_embeddings"`
	RopeLocalBaseFreq             *float64        `json:"rope_local_base_freq"` // Gemma 3
	RotaryPct                     *float64        `json:"rotary_pct"`           // GPT-NeoX
	RotaryEmbBase                 float64         `json:"rotary_emb_base"`
	NoRopeLayers                  []int           `json:"no_rope_layers"` // SmolLM3
	NoRopeLayerInterval           int             `json:"no_rope_layer_interval"`
	Alibi                         bool            `json:"alibi"` // Falcon

	// Attention.
	SlidingWindow                        *int            `json:"sliding_window"`
	UseSlidingWindow                     bool            `json:"use_sliding_window"`
	MaxWindowLayers                      int             `json:"max_window_layers"`
	SlidingWindowPattern                 int             `json:"sliding_window_pattern"`
	LayerTypes                           []string        `json:"layer_types"`
	AttentionTypes                       json.RawMessage `json:"attention_types"` // GPT-Neo
	WindowSize                           int             `json:"window_size"`
	QueryPreAttnScalar                   float64         `json:"query_pre_attn_scalar"`
	AttnLogitSoftcapping                 *float64        `json:"attn_logit_softcapping"`
	UseBidirectionalAttention            bool            `json:"use_bidirectional_attention"`
	ScaleAttnWeights                     *bool           `json:"scale_attn_weights"`
	ScaleAttnByInverseLayerIdx           bool            `json:"scale_attn_by_inverse_layer_idx"`
	AddCrossAttention                    bool            `json:"add_cross_attention"`
	MultiQuery                           bool            `json:"multi_query"`
	NewDecoderArchitecture               bool            `json:"new_decoder_architecture"`
	ParallelAttn                         bool            `json:"parallel_attn"`
	UseParallelResidual                  bool            `json:"use_parallel_residual"`
	ApplyResidualConnectionPostLayernorm bool            `json:"apply_residual_connection_post_layernorm"`

	// Multipliers, and the cap of the logits.
	EmbeddingMultiplier   float64  `json:"embedding_multiplier"`
	ResidualMultiplier    float64  `json:"residual_multiplier"`
	AttentionMultiplier   float64  `json:"attention_multiplier"`
	LogitsScaling         float64  `json:"logits_scaling"`
	FinalLogitSoftcapping *float64 `json:"final_logit_softcapping"`
}

// attentionKinds returns the kind of each layer from GPT-Neo's attention_types, such as
// [[["global", "local"], 6]].
func (b *builder) attentionKinds() []string {
	if len(b.AttentionTypes) == 0 || string(b.AttentionTypes) == "null" {
		b.AttentionTypes = json.RawMessage(`[[["global", "local"], 12]]`)
	}
	var runs []json.RawMessage
	if err := json.Unmarshal(b.AttentionTypes, &runs); err != nil {
		b.refuse("attention_types: %v", err)
		return nil
	}
	var kinds []string
	for _, run := range runs {
		var names []string
		var times int
		err := json.Unmarshal(run, &[]any{&names, &times})
		if err != nil || times < 0 || times > maxLayers {
			b.refuse("attention_types: %s is not a list of kinds and a count", run)
			return nil
		}
		for range times {
			kinds = append(kinds, names...)
		}
	}
	return kinds
}

// ids is a token id, a list of them, or null.
type ids []int32

// The largest sizes that are accepted. A larger number means a broken file.
const (
	maxLayers = 1024
	maxWidth  = 1 << 17
	maxVocab  = 1 << 21
)

const maxConfig = 1 << 20 // bytes of config.json

// readConfig reads config.json over the defaults of its model_type, and returns the loader of that type.
func readConfig(dir fs.FS, path string) (*Config, func(*builder), error) {
	fail := func(err error) (*Config, func(*builder), error) {
		return nil, nil, fmt.Errorf("read model %q: %w", path, err)
	}
	var kind struct {
		ModelType  string          `json:"model_type"`
		TextConfig json.RawMessage `json:"text_config"`
	}
	if err := readJSON(dir, "config.json", &kind); err != nil {
		return fail(err)
	}
	d, err := define(kind.ModelType)
	if err != nil && kind.TextConfig != nil {
		err = fmt.Errorf("%w; it wraps a text model (text_config) in a multimodal one, "+
			"which ptune does not support", err)
	}
	if err != nil {
		return fail(err)
	}
	c := d.defaults
	if err := readJSON(dir, "config.json", &c); err != nil {
		return fail(err)
	}
	if q := c.Quantization; len(q) > 0 && string(q) != "null" {
		return fail(errors.New("its weights are quantised (quantization_config); ptune reads F32, BF16 and F16"))
	}
	if err := c.addEOS(dir); err != nil {
		return fail(err)
	}
	return &c, d.load, nil
}

// addEOS adds the end tokens of generation_config.json that config.json does not have.
func (c *Config) addEOS(dir fs.FS) error {
	var g struct {
		EOSTokenID ids `json:"eos_token_id"`
	}
	err := readJSON(dir, "generation_config.json", &g)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, id := range g.EOSTokenID {
		if !slices.Contains(c.EOSTokenID, id) {
			c.EOSTokenID = append(c.EOSTokenID, id)
		}
	}
	return err
}

// sizes refuses sizes that are missing or too large, by key.
func (b *builder) sizes(sizes map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		n, limit := sizes[name], maxWidth
		switch name {
		case "vocab_size":
			limit = maxVocab
		case "num_hidden_layers", "n_layer", "num_layers":
			limit = maxLayers
		}
		if n < 1 || n > limit {
			b.refuse("%s is %d, want 1 to %d", name, n, limit)
		}
	}
}
