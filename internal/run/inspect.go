package run

import (
	"fmt"
	"io"
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

// Text writes the inspection for people.
func (x *Inspection) Text(to io.Writer) error {
	var t strings.Builder
	m := x.Meta
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&t, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	line("prompt", "%s: %d virtual tokens of %d values (%d parameters)", x.Path, x.VirtualTokens,
		x.Width, x.Parameters)
	line("base", "%s (%s, fingerprint %.8s)", m.Base.Name, m.Base.Type, m.Base.Fingerprint)
	if m.Messages != "" {
		line("messages", "%q", m.Messages)
	} else {
		line("input", "%q", m.Input)
		line("target", "%q", m.Target)
	}
	if m.Chat != "" {
		line("chat", "template %.8s", m.Chat)
	}
	if len(m.Labels) > 0 {
		var names []string
		for _, l := range m.Labels {
			if l.Value == l.Name {
				names = append(names, l.Name)
			} else {
				names = append(names, l.Value+" → "+l.Name)
			}
		}
		line("labels", "%s", strings.Join(names, ", "))
		if m.LabelScores != "" {
			line("", "scores: %s", m.LabelScores)
		}
	}
	if m.Init.Kind != "" {
		line("init", "%s%s, seed %d", m.Init.Kind, quoted(m.Init.Text+m.Init.File), m.Init.Seed)
	}
	if r := m.Training; r != nil {
		line("training", "%d steps of %d on %d rows (%s), best at %d; %s at %.3g",
			r.Steps, r.BatchSize, r.Rows, r.StopReason, r.BestStep, r.Optimizer, r.LearningRate)
		for _, v := range m.Valid {
			if q, ok := r.Valid[v.Name]; ok {
				if line(v.Name, "loss %.4f", q.Loss); q.Accuracy != nil {
					line("", "accuracy %.4f", *q.Accuracy)
				}
			}
		}
	}
	if x.EmbeddingNorm != nil {
		line("norm", "%.3g; the base's embedding rows have %.3g on average", x.Norm, *x.EmbeddingNorm)
	} else {
		line("norm", "%.3g", x.Norm)
	}
	for i, v := range x.Tokens {
		fmt.Fprintf(&t, "%4d  norm %-8.3g", i+1, v.Norm)
		for _, n := range v.Nearest {
			fmt.Fprintf(&t, "  %q %.2f", n.Token, n.Cosine)
		}
		t.WriteByte('\n')
	}
	_, err := io.WriteString(to, t.String())
	return err
}

// quoted returns s in quotes after a space, or nothing for no text.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(" %q", s)
}
