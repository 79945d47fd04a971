package prompt

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// Kinds returns the task file's names of the ways to initialise a prompt.
func Kinds() []string { return []string{"text", "vocab", "labels", "random", "uniform", "file"} }

// Source is what a prompt is initialised from.
type Source struct {
	Vocab    int                     // embedding rows
	Row      func(id int) []float32  // the embedding of a token
	Ordinary func(id int32) bool     // whether a token is text: neither special nor a byte-fallback one
	Text     []int32                 // the init text's ids, for kind text
	Labels   [][]int32               // each label's ids, for kind labels
	Load     func() (*Prompt, error) // the file, for kind file
}

// stream separates the draws of an initialisation from all others with the same seed.
const stream = 0x696e6974 // "init"

// New returns a prompt [rows, dim] initialised as init says. Equal arguments give equal prompts.
func New(rows, dim int, init Init, s Source) (*Prompt, error) {
	p := &Prompt{Rows: rows, Dim: dim}
	p.Meta.Init = init
	r := rand.New(rand.NewPCG(init.Seed, stream))
	var err error
	switch init.Kind {
	case "text":
		err = p.fromText(s)
	case "vocab":
		err = p.fromVocab(s, r)
	case "labels":
		err = p.fromLabels(s, r)
	case "random":
		p.fromRandom(s, r)
	case "uniform":
		for range rows * dim { // Lester et al. 2021, section 3.2
			p.Values = append(p.Values, float32(r.Float64()-0.5))
		}
	case "file":
		err = p.fromFile(s, r)
	default:
		err = fmt.Errorf("there is no init %q", init.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("initialise the prompt from %s: %w", init.Kind, err)
	}
	return p, nil
}

// fromText takes the embeddings of a text, repeated or cut to the prompt's length, as PEFT does.
func (p *Prompt) fromText(s Source) error {
	if len(s.Text) == 0 {
		return errors.New("the text has no tokens")
	}
	for i := range p.Rows {
		p.Values = append(p.Values, s.Row(int(s.Text[i%len(s.Text)]))...)
	}
	return nil
}

// common is the number of ordinary tokens, those with the lowest ids, that fromVocab draws from. Lester
// et al. took the 5,000 most common ones; tokenizers number tokens by how common they are.
const common = 5000

// fromVocab fills the rest of the prompt with the embeddings of drawn ordinary tokens. None is taken
// twice before all are taken once.
func (p *Prompt) fromVocab(s Source, r *rand.Rand) error {
	var ids []int
	for id := range s.Vocab {
		if len(ids) < common && s.Ordinary(int32(id)) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return errors.New("the vocabulary has no ordinary tokens")
	}
	n := p.Rows * p.Dim
	for len(p.Values) < n {
		for _, i := range r.Perm(len(ids)) {
			if len(p.Values) == n {
				break
			}
			p.Values = append(p.Values, s.Row(ids[i])...)
		}
	}
	return nil
}

// fromLabels makes one row for each label, the mean of its tokens' embeddings, and fills the rest with
// ordinary tokens (Lester et al. 2021, section 3.2).
func (p *Prompt) fromLabels(s Source, r *rand.Rand) error {
	if len(s.Labels) == 0 {
		return errors.New("the task has no labels")
	}
	for i, ids := range s.Labels {
		if i == p.Rows {
			break
		}
		row := make([]float32, p.Dim)
		for _, id := range ids {
			for k, v := range s.Row(int(id)) {
				row[k] += v / float32(len(ids))
			}
		}
		p.Values = append(p.Values, row...)
	}
	return p.fromVocab(s, r)
}

// fromRandom draws each dimension from a normal distribution with the mean and the standard deviation
// that it has over the embedding rows. Draws from N(0, 1), PEFT's default, are far from all of them.
func (p *Prompt) fromRandom(s Source, r *rand.Rand) {
	mean, square := make([]float64, p.Dim), make([]float64, p.Dim)
	for id := range s.Vocab {
		for k, v := range s.Row(id) {
			mean[k] += float64(v) / float64(s.Vocab)
			square[k] += float64(v) * float64(v) / float64(s.Vocab)
		}
	}
	for range p.Rows {
		for k := range p.Dim {
			deviation := math.Sqrt(max(0, square[k]-mean[k]*mean[k]))
			p.Values = append(p.Values, float32(mean[k]+deviation*r.NormFloat64()))
		}
	}
}

// fromFile takes the virtual tokens of another prompt (SPoT, Vu et al. 2022). A longer one is cut; a
// shorter one is filled with ordinary tokens.
func (p *Prompt) fromFile(s Source, r *rand.Rand) error {
	o, err := s.Load()
	if err != nil {
		return err
	}
	if o.Dim != p.Dim {
		return fmt.Errorf("the file has virtual tokens of %d values, the base needs %d", o.Dim, p.Dim)
	}
	p.Values = append(p.Values, o.Values[:min(p.Rows, o.Rows)*p.Dim]...)
	if len(p.Values) == p.Rows*p.Dim {
		return nil
	}
	return p.fromVocab(s, r)
}
