// Package arch reads causal language models from Hugging Face checkpoints and describes them as
// data: an embedding, a list of blocks, a final norm and a head. It knows the architectures, their
// config.json and the names of their weights. It computes nothing: package model interprets the
// description as a graph. After loading, only the tables of rotary positions and ALiBi biases
// grow, with the positions that are asked for.
//
// Shapes are written with T rows, D hidden width, V vocabulary.
package arch

import (
	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

// Model is a frozen causal language model.
type Model struct {
	Name         string // last element of the directory
	Type         string // model_type
	Hidden       int    // D
	Vocab        int    // V, the rows of the embedding
	MaxPositions int    // for soft prompt and text together; 0: no limit
	EOS          []int32
	Heads        kernels.Heads // heads and their width, equal in all layers
	Fingerprint  string        // a hash of names, shapes and samples of all weights
	Prefix       string        // what all names but the head's begin with in transformers

	Embedding Embedding
	EmbedNorm *Norm // of the embedded rows, soft prompts included; nil: none
	Blocks    []Block
	Norm      *Norm // before the head
	Head      Head

	Weights *tensorfile.Dir // the files; every Weight points into them

	read []string // the names of the tensors that are computed with
}

// Embedding turns token ids into rows.
type Embedding struct {
	Tokens    kernels.Weight  // [V, D]: Out is V, In is D
	Positions *kernels.Weight // [positions, D], added to every row, soft prompts included; nil: none
	Offset    int             // position p is row p + Offset of Positions
	Scale     float32         // factor of token rows only; 0: 1
	All       float32         // factor of all rows, soft prompts included; 0: 1
}

// Block is one layer: x + attention(norm x), and to that + mlp(norm of it).
type Block struct {
	Name     string // what the names of its weights begin with: "layers.3."
	AttnNorm *Norm  // before the attention; nil: none
	Attn     Attention
	AttnOut  *Linear
	AttnPost *Norm // of the attention's result, before it is added to x; nil: none
	MLPNorm  *Norm // before the MLP; nil: none. It can be AttnNorm itself
	MLP      MLP
	MLPPost  *Norm   // of the MLP's result, before it is added to x; nil: none
	Parallel bool    // x + attention(norm x) + mlp(norm x): the MLP reads x itself
	Residual float32 // factor of both results before they are added to x; 0: 1
}

// Attention is one layer's attention.
type Attention struct {
	Heads   kernels.Heads
	Q, K, V *Linear
	Fused   *Fused // instead of Q, K and V; nil: they are separate
	// QNorm and KNorm are norms of the queries and keys: of each head if the Weight is as long as a
	// head, else of the whole row. nil: none.
	QNorm, KNorm *Norm
	Rotary       *kernels.Rotary // nil: no rotary positions
	NoPromptBias *kernels.ALiBi  // replaces Heads.Bias in batches without soft prompts; nil: the same
}

// Fused is one matrix that makes queries, keys and values in an order of its own.
type Fused struct {
	Linear  *Linear
	Q, K, V []int // the output at which each head begins
}

// MLP is Down(Act(Up x)), or with a gate Down(Act(Gate x) · Up x).
type MLP struct {
	Gate     *Linear // nil: none
	Up, Down *Linear
	Act      kernels.Activation
}

// Linear is x Wᵀ + b.
type Linear struct {
	Weight kernels.Weight // [Out, In]
	Bias   []float32      // [Out]; nil: none
}

// Outputs returns the part of l that makes the outputs from <= o < from+n.
func (l *Linear) Outputs(from, n int) *Linear {
	p := &Linear{Weight: l.Weight.OutRange(from, n)}
	if l.Bias != nil {
		p.Bias = l.Bias[from : from+n]
	}
	return p
}

// Norm is an RMS norm, or with a Bias a layer norm.
type Norm struct {
	Name         string    // of its module in the checkpoint
	Weight, Bias []float32 // [D]
	Eps          float32
}

// Head makes logits from hidden states.
type Head struct {
	Linear         // Weight [V, D]
	Scale  float32 // factor of the logits; 0: 1
	Cap    float32 // then logits l become Cap tanh(l / Cap); 0: they stay
}

// Layers returns the number of blocks.
func (m *Model) Layers() int { return len(m.Blocks) }
