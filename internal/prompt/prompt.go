// Package prompt is the soft prompt: a matrix of P virtual tokens, what is known of it, how it begins and its file. It knows
// no graphs and no tokenizers: it is given embedding rows and token ids.
package prompt

import (
	"fmt"
	"math"
)

// Prompt is P virtual token embeddings of D values, row 0 leftmost.
type Prompt struct {
	Rows, Dim int
	Values    []float32 // [P, D]
	Meta      Meta
}

// Meta is what a prompt's file says beside its values.
type Meta struct {
	Base      Base      `json:"base"`
	Tokenizer string    `json:"tokenizer"` // hash of tokenizer.json
	Input     string    `json:"input"`     // templates of the task
	Target    string    `json:"target"`
	Labels    []Label   `json:"labels,omitempty"`
	Chat      string    `json:"chat,omitempty"`     // SHA-256 of the chat template that input and target went through
	Messages  string    `json:"messages,omitempty"` // in place of input and target: the field with a conversation
	EOS       int32     `json:"eos"`                // ends a target
	MaxTokens int       `json:"max_tokens"`         // of a row, and what is done with longer ones
	OnTooLong string    `json:"on_too_long"`
	Init      Init      `json:"init"`
	Reading   Reading   `json:"reading,omitzero"` // how the files of rows are written
	Valid     []Set     `json:"valid,omitempty"`  // what it was validated on
	Training  *Training `json:"training,omitempty"`
}

// Reading is how files of rows are written, as the task file says under data.
type Reading struct {
	Columns   []string `json:"columns,omitempty"`
	Separator string   `json:"separator,omitempty"`
	Quotes    string   `json:"quotes,omitempty"`
	Encoding  string   `json:"encoding,omitempty"`
}

// IsZero tells that nothing is unusual.
func (r Reading) IsZero() bool {
	return len(r.Columns) == 0 && r.Separator == "" && (r.Quotes == "" || r.Quotes == "auto") && (r.Encoding == "" || r.Encoding == "utf-8")
}

// Base is the model a prompt was made for.
type Base struct {
	Name        string `json:"name"`
	Path        string `json:"path"` // as the task file has it, or relative to the prompt's file
	Fingerprint string `json:"fingerprint"`
	Type        string `json:"type"`
}

// Label is a class of the task: the rows' value and its name in the target.
type Label struct {
	Value string `json:"value"`
	Name  string `json:"name"`
}

// Set is a named file of rows; its path is kept as Base's is.
type Set struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Init says how the prompt began.
type Init struct {
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"`
	File string `json:"file,omitempty"`
	Seed uint64 `json:"seed"`
}

// Training is the run that made the prompt. It has no times, so that the same run makes the same bytes.
type Training struct {
	Steps        int                `json:"steps"`
	BestStep     int                `json:"best_step"`
	StopReason   string             `json:"stop_reason"`
	Optimizer    string             `json:"optimizer"`
	LearningRate float64            `json:"learning_rate"`
	BatchSize    int                `json:"batch_size"`
	Rows         int                `json:"rows"`
	Valid        map[string]Quality `json:"valid,omitempty"`
	Version      string             `json:"ptune_version"`
}

// Quality is what an evaluation found.
type Quality struct {
	Loss     float64  `json:"loss"`
	Accuracy *float64 `json:"accuracy,omitempty"`
}

// Row is virtual token i.
func (p *Prompt) Row(i int) []float32 { return p.Values[i*p.Dim : (i+1)*p.Dim] }

// Norm is the Euclidean length of values.
func Norm(values []float32) float64 {
	var s float64
	for _, v := range values {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// Fits refuses a prompt that was made for another base, naming both.
func (p *Prompt) Fits(name, fingerprint string, dim int) error {
	switch {
	case p.Dim != dim:
		return fmt.Errorf("the prompt has rows of %d values (made for %q), but %q has a width of %d", p.Dim, p.Meta.Base.Name, name, dim)
	case p.Meta.Base.Fingerprint != "" && p.Meta.Base.Fingerprint != fingerprint:
		return fmt.Errorf("the prompt was made for base %q (%.8s), this is %q (%.8s) with other weights", p.Meta.Base.Name, p.Meta.Base.Fingerprint, name, fingerprint)
	}
	return nil
}

// Check refuses values that are not numbers.
func (p *Prompt) Check() error {
	for i, v := range p.Values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("virtual token %d has the value %g", i/p.Dim+1, v)
		}
	}
	return nil
}
