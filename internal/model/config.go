package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Config is what config.json says of a checkpoint; an architecture reads the fields that it knows.
type Config struct {
	ModelType             string          `json:"model_type"`
	VocabSize             int             `json:"vocab_size"`
	HiddenSize            int             `json:"hidden_size"`
	IntermediateSize      int             `json:"intermediate_size"`
	NumHiddenLayers       int             `json:"num_hidden_layers"`
	NumAttentionHeads     int             `json:"num_attention_heads"`
	NumKeyValueHeads      int             `json:"num_key_value_heads"`
	HeadDim               int             `json:"head_dim"`
	MaxPositionEmbeddings int             `json:"max_position_embeddings"`
	RMSNormEps            float64         `json:"rms_norm_eps"`
	RopeTheta             float64         `json:"rope_theta"`
	RopeScaling           json.RawMessage `json:"rope_scaling"`
	RopeParameters        *RopeParameters `json:"rope_parameters"` // transformers 5 writes theta and scaling here
	HiddenAct             string          `json:"hidden_act"`
	AttentionBias         bool            `json:"attention_bias"`
	MLPBias               bool            `json:"mlp_bias"`
	TieWordEmbeddings     *bool           `json:"tie_word_embeddings"`
	EOSTokenID            ids             `json:"eos_token_id"`
	Quantization          json.RawMessage `json:"quantization_config"`

	// GPT-2's own names.
	NEmbd                      int     `json:"n_embd"`
	NLayer                     int     `json:"n_layer"`
	NHead                      int     `json:"n_head"`
	NPositions                 int     `json:"n_positions"`
	NInner                     *int    `json:"n_inner"`
	ActivationFunction         string  `json:"activation_function"`
	LayerNormEpsilon           float64 `json:"layer_norm_epsilon"`
	ScaleAttnWeights           *bool   `json:"scale_attn_weights"`
	ScaleAttnByInverseLayerIdx bool    `json:"scale_attn_by_inverse_layer_idx"`
	AddCrossAttention          bool    `json:"add_cross_attention"`
}

// RopeParameters is the rotary embedding as transformers 5 writes it.
type RopeParameters struct {
	RopeTheta float64 `json:"rope_theta"`
	RopeType  string  `json:"rope_type"`
}

// ids is a token id, a list of them, or null.
type ids []int32

func (x *ids) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	if b[0] == '[' {
		return json.Unmarshal(b, (*[]int32)(x))
	}
	*x = make(ids, 1)
	return json.Unmarshal(b, &(*x)[0])
}

// Sizes a checkpoint may have; a larger number is a broken file.
const (
	maxLayers = 1024
	maxWidth  = 1 << 17
	maxVocab  = 1 << 21
)

const maxConfig = 1 << 20

func readConfig(dir fs.FS, path string) (*Config, error) {
	f, err := dir.Open("config.json")
	if err != nil {
		return nil, fmt.Errorf("read model %q: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("read model %q: %w", path, err)
	}
	c := &Config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("read model %q: config.json: %w", path, err)
	}
	if len(c.Quantization) > 0 && string(c.Quantization) != "null" {
		return nil, fmt.Errorf("read model %q: its weights are quantised (quantization_config); ptune reads F32, BF16 and F16", path)
	}
	return c, nil
}

// check refuses sizes that are missing or absurd.
func (c *Config) check(sizes map[string]int) error {
	var bad []string
	for name, n := range sizes {
		limit := maxWidth
		switch name {
		case "vocab_size":
			limit = maxVocab
		case "num_hidden_layers", "n_layer":
			limit = maxLayers
		}
		if n < 1 || n > limit {
			bad = append(bad, fmt.Sprintf("%s is %d, want 1 to %d", name, n, limit))
		}
	}
	if bad != nil {
		return fmt.Errorf("config.json: %s", strings.Join(bad, "; "))
	}
	return nil
}
