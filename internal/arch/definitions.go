package arch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// definition is how one model_type is loaded.
type definition struct {
	load     func(b *builder) // reads the weights into b.m and reports what does not fit with b.refuse
	defaults Config           // what transformers assumes for keys that config.json does not have
}

// definitions returns the definition of every model_type that ptune can load.
func definitions() map[string]definition {
	return map[string]definition{
		"bloom": {loadBloom, Config{LayerNormEpsilon: 1e-5}},
		"falcon": {loadFalcon, Config{LayerNormEpsilon: 1e-5, MultiQuery: true, ParallelAttn: true,
			Activation: "gelu", MaxPositionEmbeddings: 2048}},
		"gemma": {loadGemma, Config{RMSNormEps: 1e-6, HiddenAct: "gelu_pytorch_tanh", HeadDim: 256}},
		"gemma2": {loadGemma2, Config{RMSNormEps: 1e-6, HeadDim: 256, QueryPreAttnScalar: 256,
			SlidingWindow: new(4096), AttnLogitSoftcapping: new(50.0),
			FinalLogitSoftcapping: new(30.0)}},
		"gemma3_text": {loadGemma3, Config{RMSNormEps: 1e-6, HeadDim: 256, QueryPreAttnScalar: 256,
			SlidingWindow: new(4096), SlidingWindowPattern: 6, RopeTheta: 1e6}},
		"gpt2": {loadGPT2, Config{LayerNormEpsilon: 1e-5, ActivationFunction: "gelu_new",
			NPositions: 1024}},
		"gpt_neo": {loadGPTNeo, Config{LayerNormEpsilon: 1e-5, ActivationFunction: "gelu_new",
			MaxPositionEmbeddings: 2048, WindowSize: 256}},
		"gpt_neox": {loadGPTNeoX, Config{LayerNormEps: 1e-5, HiddenAct: "gelu",
			MaxPositionEmbeddings: 2048, UseParallelResidual: true, AttentionBias: true,
			PartialRotaryFactor: new(0.25)}},
		"granite": {loadGranite, Config{RMSNormEps: 1e-6, HiddenAct: "silu", EmbeddingMultiplier: 1,
			ResidualMultiplier: 1, AttentionMultiplier: 1, LogitsScaling: 1}},
		"llama": {loadLlama, Config{RMSNormEps: 1e-6, HiddenAct: "silu", MaxPositionEmbeddings: 2048}},
		"mistral": {loadMistral, Config{RMSNormEps: 1e-6, HiddenAct: "silu", NumKeyValueHeads: 8,
			SlidingWindow: new(4096)}},
		"olmo2": {loadOLMo2, Config{RMSNormEps: 1e-5, HiddenAct: "silu", MaxPositionEmbeddings: 2048}},
		"opt": {loadOPT, Config{ActivationFunction: "relu", MaxPositionEmbeddings: 2048,
			DoLayerNormBefore: true, EnableBias: true, LayerNormElementwiseAffine: true}},
		"phi": {loadPhi, Config{LayerNormEps: 1e-5, HiddenAct: "gelu_new", MaxPositionEmbeddings: 2048,
			PartialRotaryFactor: new(0.5)}},
		"phi3": {loadPhi3, Config{RMSNormEps: 1e-5, HiddenAct: "silu", MaxPositionEmbeddings: 4096}},
		"qwen2": {loadQwen2, Config{RMSNormEps: 1e-6, HiddenAct: "silu", SlidingWindow: new(4096),
			MaxWindowLayers: 28}},
		"qwen3": {loadQwen3, Config{RMSNormEps: 1e-6, HiddenAct: "silu", HeadDim: 128,
			SlidingWindow: new(4096), MaxWindowLayers: 28}},
		"smollm3": {loadSmolLM3, Config{RMSNormEps: 1e-6, HiddenAct: "silu", NumKeyValueHeads: 4,
			RopeTheta: 2e6, NoRopeLayerInterval: 4}},
		"stablelm": {loadStableLM, Config{LayerNormEps: 1e-5, HiddenAct: "silu",
			MaxPositionEmbeddings: 4096, PartialRotaryFactor: new(0.25)}},
		"starcoder2": {loadStarcoder2, Config{NormEpsilon: 1e-5, HiddenAct: "gelu_pytorch_tanh",
			NumKeyValueHeads: 2, MaxPositionEmbeddings: 4096, UseBias: true}},
	}
}

// define returns the definition of a model_type.
func define(modelType string) (definition, error) {
	all := definitions()
	if d, ok := all[modelType]; ok {
		return d, nil
	}
	known := strings.Join(slices.Sorted(maps.Keys(all)), ", ")
	return definition{}, fmt.Errorf("ptune cannot load model_type %q; it can load %s",
		modelType, known)
}
