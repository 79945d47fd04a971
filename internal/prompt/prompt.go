// Package prompt has the adapters: what is trained for a task, how it is initialised, and its files,
// PEFT's included. An adapter is a soft prompt (a matrix of P virtual tokens), a LoRA, or all weights
// of a base. The package knows neither graphs nor tokenizers: callers pass embedding rows, token ids
// and the names of modules.
package prompt

import (
	"fmt"
	"math"
	"strings"
)

// Prompt is P virtual token embeddings of D values, row 0 leftmost.
type Prompt struct {
	Rows, Dim int
	Values    []float32 // [P, D]
	Meta      Meta
}

// Meta is what a prompt file holds beside its values.
type Meta struct {
	Base      Base    `json:"base"`
	Tokenizer string  `json:"tokenizer"` // hash of tokenizer.json
	Input     string  `json:"input"`     // the task's templates
	Target    string  `json:"target"`
	Labels    []Label `json:"labels,omitempty"`
	// LabelScores is mean if a label's score is the mean of −log p over its tokens, empty if it is the sum.
	LabelScores string `json:"label_scores,omitempty"`
	Chat        string `json:"chat,omitempty"`     // SHA-256 of the chat template around them
	Messages    string `json:"messages,omitempty"` // instead of them: a conversation's field
	// Continued says that targets are encoded as continuations of their inputs. It is set only if
	// that gives other ids than encoding them alone, as earlier versions did.
	Continued bool      `json:"continued,omitempty"`
	EOS       int32     `json:"eos"`         // ends a target
	MaxTokens int       `json:"max_tokens"`  // of a row
	OnTooLong string    `json:"on_too_long"` // what happens to longer rows
	Init      Init      `json:"init"`
	Reading   Reading   `json:"reading,omitzero"` // how data files are read
	Valid     []Set     `json:"valid,omitempty"`  // the validation files
	Training  *Training `json:"training,omitempty"`
}

// Reading is how data files are read; its fields are keys of the task file under data.
type Reading struct {
	Columns   []string `json:"columns,omitempty"`
	Separator string   `json:"separator,omitempty"`
	Quotes    string   `json:"quotes,omitempty"`
	Encoding  string   `json:"encoding,omitempty"`
}

// IsZero tells whether all fields have their defaults.
func (r Reading) IsZero() bool {
	return len(r.Columns) == 0 && r.Separator == "" &&
		(r.Quotes == "" || r.Quotes == "auto") && (r.Encoding == "" || r.Encoding == "utf-8")
}

// Base is the model that a prompt was trained for.
type Base struct {
	Name        string `json:"name"`
	Path        string `json:"path"` // as in the task file, or relative to the prompt file
	Fingerprint string `json:"fingerprint"`
	Type        string `json:"type"`
}

// Label is a class of the task: its value in the rows and its name in the target.
type Label struct {
	Value string `json:"value"`
	Name  string `json:"name"`
}

// ParseLabels reads labels, each a name or value=name.
func ParseLabels(list []string) []Label {
	var labels []Label
	for _, s := range list {
		value, name, ok := strings.Cut(s, "=")
		if !ok {
			name = value
		}
		labels = append(labels, Label{Value: value, Name: name})
	}
	return labels
}

// Set is a named file of rows. Its path is relative like that of Base.
type Set struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Init says how the prompt was initialised.
type Init struct {
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"`
	File string `json:"file,omitempty"`
	Seed uint64 `json:"seed"`
}

// Training is the run that made the prompt. It has no times, so that equal runs write equal bytes.
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

// Quality is the result of an evaluation.
type Quality struct {
	Loss     float64  `json:"loss"`
	Accuracy *float64 `json:"accuracy,omitempty"`
}

// Row returns virtual token i.
func (p *Prompt) Row(i int) []float32 { return p.Values[i*p.Dim : (i+1)*p.Dim] }

// Norm returns the Euclidean norm of values.
func Norm(values []float32) float64 {
	var s float64
	for _, v := range values {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// Fits returns an error that names both bases if the prompt was made for another one.
func (p *Prompt) Fits(name, fingerprint string, dim int) error {
	switch {
	case p.Dim != dim:
		return fmt.Errorf("the prompt has rows of %d values (made for %q), but %q has a width of %d",
			p.Dim, p.Meta.Base.Name, name, dim)
	case p.Meta.Base.Fingerprint != "" && p.Meta.Base.Fingerprint != fingerprint:
		return fmt.Errorf("the prompt was made for base %q (%.8s), this is %q (%.8s) with other weights",
			p.Meta.Base.Name, p.Meta.Base.Fingerprint, name, fingerprint)
	}
	return nil
}

// Check returns an error if a value is NaN or infinite.
func (p *Prompt) Check() error {
	for i, v := range p.Values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("virtual token %d has the value %g", i/p.Dim+1, v)
		}
	}
	return nil
}
