package infer

import (
	"context"
	"fmt"

	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// Generator continues inputs after each of its soft prompts.
type Generator struct {
	common  Request // what all requests have in common
	engine  *Engine
	prompts []*prompt.Prompt // nil: the base model alone
	tasks   []*Task          // of each prompt
}

// NewGenerator returns a generator without prompts. Sampling, MaxTokens, EOS and Stop of its
// requests are those of common.
func NewGenerator(e *Engine, common Request) *Generator {
	return &Generator{common: common, engine: e}
}

// Add adds a soft prompt with the task of its metadata, or nil for the base model alone. If inputs will
// be texts, the prompt's template must have one field.
func (g *Generator) Add(p *prompt.Prompt, b Base, tok Tokenizer, texts bool) error {
	m := &prompt.Meta{}
	if p != nil {
		m = &p.Meta
	}
	t, err := NewTask(m, b, tok)
	if err == nil && texts {
		err = t.CheckText()
	}
	if err != nil {
		return err
	}
	g.prompts, g.tasks = append(g.prompts, p), append(g.tasks, t)
	return nil
}

// Generate continues each input after each prompt and returns the results in this order: those of the
// first input, then those of the second. show, if not nil, gets the pieces of result number i. Prompts
// are computed once for each call, so that its results do not depend on earlier calls.
func (g *Generator) Generate(ctx context.Context, inputs []Input,
	show func(i int, piece string)) ([]Result, error) {
	prompts := make([]*Prompt, len(g.prompts))
	for k, p := range g.prompts {
		if p == nil {
			continue
		}
		var err error
		if prompts[k], err = g.engine.AddPrompt(p.Values, p.Rows); err != nil {
			return nil, err
		}
		defer g.engine.RemovePrompt(prompts[k])
	}
	var requests []Request
	for _, x := range inputs {
		for k, t := range g.tasks {
			r := g.common
			r.Prompt, r.Stream = prompts[k], len(requests)
			var err error
			if r.IDs, err = t.ids(x); err != nil {
				return nil, failure.Usage(fmt.Errorf("%s: %w", x.Place, err))
			}
			if i := len(requests); show != nil {
				r.Show = func(piece string) { show(i, piece) }
			}
			requests = append(requests, r)
		}
	}
	return g.engine.Generate(ctx, requests)
}

// ids returns the token ids of an input.
func (t *Task) ids(x Input) ([]int32, error) {
	if x.Fields == nil {
		return t.Text(x.Text)
	}
	return t.Fields(x.Fields)
}
