package run

import (
	"strings"

	"ptune/internal/base"
	"ptune/internal/prompt"
)

// Inspection is what a soft prompt's file and its base say about it, as JSON too.
type Inspection struct {
	Path          string         `json:"path"`
	VirtualTokens int            `json:"virtual_tokens"`
	Width         int            `json:"width"`
	Parameters    int            `json:"parameters"`
	Meta          prompt.Meta    `json:"meta"`
	Norm          float64        `json:"norm"`
	EmbeddingNorm *float64       `json:"embedding_norm,omitempty"` // mean over the base's rows
	Tokens        []VirtualToken `json:"tokens"`

	prompt *prompt.Prompt
}

// VirtualToken is a row of a soft prompt.
type VirtualToken struct {
	Norm    float64        `json:"norm"`
	Nearest []NearestToken `json:"nearest,omitempty"`
}

// NearestToken is a token of the vocabulary near to a virtual token.
type NearestToken struct {
	ID     int     `json:"id"`
	Token  string  `json:"token"`
	Cosine float64 `json:"cosine"`
}

// Inspect returns what the file of a prompt says.
func Inspect(p base.Prompt) *Inspection {
	x := &Inspection{
		Path: p.Path, VirtualTokens: p.Rows, Width: p.Dim, Parameters: len(p.Values), Meta: p.Meta,
		Norm: prompt.Norm(p.Values), prompt: p.Prompt,
	}
	for i := range p.Rows {
		x.Tokens = append(x.Tokens, VirtualToken{Norm: prompt.Norm(p.Row(i))})
	}
	return x
}

// AddNearest adds the tokens nearest to each virtual token, at most top, and the mean norm of the base's
// embeddings.
func (x *Inspection) AddNearest(b *base.Base, top int) {
	found, mean := x.prompt.Nearest(prompt.Source{Vocab: b.Vocab, Row: b.EmbeddingRow}, top)
	x.EmbeddingNorm = &mean
	for i, neighbors := range found {
		for _, n := range neighbors {
			token := b.Tokenizer.Decode([]int32{int32(n.ID)})
			if strings.Trim(token, "\ufffd") == "" { // part of a character: the token's own name
				token = b.Tokenizer.Piece(int32(n.ID))
			}
			x.Tokens[i].Nearest = append(x.Tokens[i].Nearest, NearestToken{n.ID, token, n.Cosine})
		}
	}
}
