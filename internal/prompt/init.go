package prompt

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// Kinds are the ways a prompt can begin, as the task file names them.
func Kinds() []string { return []string{"text", "vocab", "labels", "random", "uniform", "file"} }

// Source is what a prompt begins from.
type Source struct {
	Vocab    int                     // embedding rows
	Row      func(id int) []float32  // the embedding of a token
	Ordinary func(id int32) bool     // whether a token is text: neither special nor a byte-fallback one
	Text     []int32                 // the init text's ids, for kind text
	Labels   [][]int32               // each label's ids, for kind labels
	Load     func() (*Prompt, error) // the file, for kind file
}

// stream keeps the draws of the start apart from all others that use the seed.
const stream = 0x696e6974 // "init"

// New makes a prompt of rows × dim values. It depends on its arguments and init.Seed alone.
func New(rows, dim int, init Init, s Source) (*Prompt, error) {
	p := &Prompt{Rows: rows, Dim: dim, Values: make([]float32, 0, rows*dim)}
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
		return nil, fmt.Errorf("start the prompt from %s: %w", init.Kind, err)
	}
	return p, nil
}

// fromText takes the embeddings of a text, repeated and cut to the prompt's length, as PEFT does.
func (p *Prompt) fromText(s Source) error {
	if len(s.Text) == 0 {
		return errors.New("the text has no token")
	}
	for i := range p.Rows {
		p.Values = append(p.Values, s.Row(int(s.Text[i%len(s.Text)]))...)
	}
	return nil
}

// common is how many ordinary tokens, those of the lowest ids, a prompt begins from: Lester et al. took the 5,000 most common, and
// tokenizers number what they have merged from the most common on.
const common = 5000

// fromVocab fills the prompt with the embeddings of ordinary tokens, each at most once while there are enough.
func (p *Prompt) fromVocab(s Source, r *rand.Rand) error {
	var ids []int
	for id := range s.Vocab {
		if len(ids) < common && s.Ordinary(int32(id)) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return errors.New("the vocabulary has no ordinary token")
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

// fromLabels takes one row for each label, the mean of its tokens' embeddings, and ordinary tokens for the rest
// (Lester et al. 2021, section 3.2).
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

// fromRandom draws each dimension from a normal distribution with the mean and deviation it has over the embedding's rows:
// N(0,1), PEFT's default, lies far outside of them.
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

// fromFile takes another prompt (SPoT, Vu et al. 2022): as much of it as there is room for, and ordinary tokens behind a shorter one.
func (p *Prompt) fromFile(s Source, r *rand.Rand) error {
	o, err := s.Load()
	if err != nil {
		return err
	}
	if o.Dim != p.Dim {
		return fmt.Errorf("the file has virtual tokens of %d values, the task wants %d", o.Dim, p.Dim)
	}
	p.Values = append(p.Values, o.Values[:min(p.Rows, o.Rows)*p.Dim]...)
	if len(p.Values) == p.Rows*p.Dim {
		return nil
	}
	return p.fromVocab(s, r)
}
