package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// Generator continues inputs after each of its soft prompts.
type Generator struct {
	common  Request // what all requests have in common
	engine  *Engine
	follows []*follow
	asked   int // requests
}

// follow is a soft prompt that inputs follow, with its task.
type follow struct {
	engines *Prompt // the engine's prompt; nil: the base model alone
	task    *Task
	choices []data.Choice // the only texts that may be generated; none: any text
	labels  [][]int32     // what is scored for each of them
	mean    bool          // their scores are means over tokens
}

// NewGenerator returns a generator without prompts, to be closed. Sampling, MaxTokens, EOS and Stop of its requests are
// those of common.
func NewGenerator(e *Engine, common Request) *Generator {
	return &Generator{common: common, engine: e}
}

// Add adds a soft prompt with the task of its metadata, or nil for the base model alone. If inputs will
// be texts, the prompt's template must have one field. With onlyLabels, the prompt must have labels, and
// each result is one of them.
func (g *Generator) Add(p *prompt.Prompt, b Base, tok Tokenizer, texts, onlyLabels bool) error {
	m := &prompt.Meta{}
	if p != nil {
		m = &p.Meta
	}
	f := &follow{}
	var err error
	if f.task, err = NewTask(m, b, tok); err == nil && texts {
		err = f.task.CheckText()
	}
	if err == nil && onlyLabels {
		if _, f.choices, err = f.task.Format(); err == nil && len(f.choices) == 0 {
			err = errors.New("the prompt has no labels, so there is nothing to choose from")
		}
		for _, c := range f.choices {
			f.labels = append(f.labels, c.IDs)
		}
		f.labels, f.mean = LabelEnds(f.labels, m.EOS), m.LabelScores == data.ScoreMean
	}
	if err == nil && p != nil {
		f.engines, err = g.engine.AddPrompt(p.Values, p.Rows)
	}
	if err != nil {
		return err
	}
	g.follows = append(g.follows, f)
	return nil
}

// Close removes the soft prompts from the engine.
func (g *Generator) Close() {
	for _, f := range g.follows {
		if f.engines != nil {
			g.engine.RemovePrompt(f.engines)
		}
	}
}

// Answer is what was generated for an input: a result after each soft prompt, in their order. Those of
// a blank line are empty.
type Answer struct {
	Input
	Results []Result
	Shown   bool // the pieces of the only result have been shown
}

// Check returns a usage error that lists the inputs that Run would refuse, such as those that are too
// long, or the cause of the end of ctx.
func (g *Generator) Check(ctx context.Context, inputs []Input) error {
	var errs data.Mistakes
	for _, x := range inputs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, f := range g.follows {
			r, err := g.request(f, x)
			if err == nil {
				err = g.engine.Check(r)
			}
			if err != nil {
				errs.Add(x.Place, err)
				break
			}
		}
	}
	return failure.Usage(errs.Err())
}

// request returns the request of an input after a soft prompt.
func (g *Generator) request(f *follow, x Input) (r Request, err error) {
	r = g.common
	r.Prompt, r.Labels = f.engines, f.labels
	if x.Fields == nil {
		r.IDs, err = f.task.Text(x.Text)
	} else {
		r.IDs, err = f.task.Fields(x.Fields)
	}
	return r, err
}

// inWork is an input being answered.
type inWork struct {
	Input
	requests []Request
	handles  []*Handle
	shown    bool
}

// Run answers inputs as they come, at most ahead at a time, and calls out with the answers in the
// inputs' order. If show is not nil and there is one prompt, the text of an input that nothing else
// waits for is shown in pieces while it is made. Of an input that is refused, Run returns the error
// after those before it are answered.
func (g *Generator) Run(ctx context.Context, inputs <-chan Input, ahead int, show func(piece string),
	out func(Answer) error) error {
	var queue []*inWork
	defer func() {
		for _, x := range queue {
			for _, h := range x.handles {
				g.engine.Cancel(h)
			}
		}
	}()
	var refused error
	for {
		for inputs != nil && len(queue) < ahead {
			x, state := receive(ctx, inputs, len(queue) == 0)
			if state == later {
				break
			}
			if state == ended {
				inputs = nil
				break
			}
			if err := x.Err; err == nil {
				var asked *inWork
				if asked, err = g.ask(x, show, len(queue) == 0); err == nil {
					queue = append(queue, asked)
					continue
				}
				refused = failure.Usage(fmt.Errorf("%s: %w", x.Place, err))
			} else {
				refused = err
			}
			inputs = nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(queue) == 0 {
			return refused
		}
		if !g.engine.Idle() {
			if err := g.engine.Step(ctx); err != nil {
				return err
			}
		}
		for len(queue) > 0 && queue[0].over() {
			a, err := g.answer(queue[0])
			if err == nil {
				err = out(a)
			}
			if err != nil {
				return err
			}
			queue = queue[1:]
		}
	}
}

// What receive found.
const (
	there = iota
	later
	ended
)

// receive returns the next input. With wait it waits for one, or for the end of ctx.
func receive(ctx context.Context, inputs <-chan Input, wait bool) (Input, int) {
	var x Input
	ok := true
	if wait {
		select {
		case x, ok = <-inputs:
		case <-ctx.Done():
			return x, later
		}
	} else {
		select {
		case x, ok = <-inputs:
		default:
			return x, later
		}
	}
	if !ok {
		return x, ended
	}
	return x, there
}

// ask adds the requests of an input to the engine. alone: no other input is being answered.
func (g *Generator) ask(x Input, show func(string), alone bool) (*inWork, error) {
	w := &inWork{Input: x}
	if x.Blank {
		return w, nil
	}
	for _, f := range g.follows {
		r, err := g.request(f, x)
		if err != nil {
			return nil, err
		}
		r.Stream = g.asked + len(w.requests)
		if show != nil && alone && len(g.follows) == 1 && r.Labels == nil {
			r.Show, w.shown = show, true
		}
		w.requests = append(w.requests, r)
	}
	for _, r := range w.requests {
		h, err := g.engine.Add(r)
		if err != nil {
			for _, h := range w.handles {
				g.engine.Cancel(h)
			}
			return nil, err
		}
		w.handles = append(w.handles, h)
	}
	g.asked += len(w.handles)
	return w, nil
}

// over reports whether all requests of an input are.
func (w *inWork) over() bool {
	for _, h := range w.handles {
		if h.result == nil && h.err == nil {
			return false
		}
	}
	return true
}

// answer returns the results of an input whose requests are over.
func (g *Generator) answer(w *inWork) (Answer, error) {
	a := Answer{Input: w.Input, Shown: w.shown}
	if w.Blank {
		a.Results = make([]Result, len(g.follows))
		for i := range a.Results {
			a.Results[i].FinishReason = FinishBlank
		}
		return a, nil
	}
	for i, h := range w.handles {
		if h.err != nil {
			return a, fmt.Errorf("%s: %w", w.Place, h.err)
		}
		r := *h.result
		if f := g.follows[i]; f.labels != nil {
			if slices.ContainsFunc(h.result.Scores, math.IsNaN) {
				return a, fmt.Errorf("%s: %w", w.Place, ErrNaN)
			}
			r = g.label(f, h)
		}
		a.Results = append(a.Results, r)
	}
	return a, nil
}

// label returns the likeliest label, the first of several, or with a temperature one that is chosen by
// its likelihood as a token is by its logit.
func (g *Generator) label(f *follow, h *Handle) Result {
	found := h.result.Scores
	if f.mean {
		found = MeanScores(found, f.labels)
	}
	best := Likeliest(found)
	if h.Temperature > 0 {
		scores := make([]float32, len(found))
		for i, nll := range found {
			scores[i] = float32(-nll)
		}
		best = int(h.sample.next(scores, nil, nil))
	}
	r := Result{IDs: f.choices[best].IDs, FinishReason: FinishLabel, Scores: found}
	if g.engine.Decode != nil {
		r.Text = Continuation(g.engine.Decode, h.IDs, r.IDs)
	}
	return r
}
