// Package generate continues texts token by token: it chooses tokens, knows when a text ends, and hands out text as it
// becomes certain. It does not know how logits are made.
package generate

import (
	"context"
	"strings"
	"unicode/utf8"
)

// Decoder makes logits. Rows of logits are valid until the next call.
type Decoder interface {
	// Next adds a token to each of the texts and returns the logits of what follows each.
	Next(texts []int, ids []int32) ([][]float32, error)
	// Full tells whether a text can grow no further.
	Full(text int) bool
}

// Options are how texts are continued.
type Options struct {
	Sampling
	MaxTokens int
	EOS       []int32  // tokens that end a text
	Stop      []string // texts that end a text; they are left out
}

// Why a text ended.
const (
	FinishEOS    = "eos"
	FinishStop   = "stop"
	FinishLength = "length"
)

// Result is a continued text.
type Result struct {
	Text         string
	IDs          []int32 // what was generated, without the end token
	FinishReason string
}

// text is a text in work.
type text struct {
	decode func(ids []int32) string
	sample *sampler
	ids    []int32
	shown  int // bytes of the text that were handed out
	result *Result
}

// Run continues every text from its first logits. decode turns the ids generated for a text into their text; show, if not
// nil, is given each piece of a text as soon as it can no longer change.
func Run(ctx context.Context, d Decoder, first [][]float32, decode func(text int, ids []int32) string, o Options, show func(text int, piece string)) ([]Result, error) {
	texts := make([]*text, len(first))
	live := make([]int, len(first))
	logits := first
	for i := range texts {
		texts[i] = &text{decode: func(ids []int32) string { return decode(i, ids) }, sample: newSampler(o.Sampling, i)}
		live[i] = i
	}
	for len(live) > 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var ids []int32
		var next []int
		for k, i := range live {
			t := texts[i]
			id, on := t.choose(logits[k], o)
			if on && d.Full(i) {
				t.finish(FinishLength)
				on = false
			}
			if !on || show != nil || len(o.Stop) > 0 { // otherwise nobody looks at the text before its end
				if piece := t.settle(o, !on); show != nil && piece != "" {
					show(i, piece)
				}
			}
			if t.result == nil {
				next, ids = append(next, i), append(ids, id)
			}
		}
		if len(next) == 0 {
			break
		}
		var err error
		if logits, err = d.Next(next, ids); err != nil {
			return nil, err
		}
		live = next
	}
	results := make([]Result, len(texts))
	for i, t := range texts {
		results[i] = *t.result
	}
	return results, nil
}

// choose takes the next token; on is false where it ends the text.
func (t *text) choose(logits []float32, o Options) (id int32, on bool) {
	if o.MaxTokens <= 0 {
		t.finish(FinishLength)
		return 0, false
	}
	id = t.sample.next(logits)
	for _, e := range o.EOS {
		if id == e {
			t.finish(FinishEOS)
			return id, false
		}
	}
	t.ids = append(t.ids, id)
	if len(t.ids) == o.MaxTokens {
		t.finish(FinishLength)
		return id, false
	}
	return id, true
}

func (t *text) finish(reason string) {
	t.result = &Result{IDs: t.ids, FinishReason: reason}
}

// settle returns the piece of the text that became certain: not the bytes of an unfinished character, and nothing that may
// turn out to begin a stop text, unless this is the end.
func (t *text) settle(o Options, end bool) string {
	s := t.decode(t.ids)
	for _, stop := range o.Stop {
		if i := strings.Index(s, stop); i >= 0 {
			s, end = s[:i], true
			t.finish(FinishStop)
		}
	}
	certain := len(s)
	if !end {
		certain = len(strings.TrimRight(s, string(utf8.RuneError)))
		for _, stop := range o.Stop {
			for n := min(len(stop)-1, certain); n > 0; n-- {
				if strings.HasPrefix(stop, s[certain-n:certain]) {
					certain -= n
					break
				}
			}
		}
	}
	if t.result != nil {
		t.result.Text = s
	}
	if certain <= t.shown {
		return ""
	}
	piece := s[t.shown:certain]
	t.shown = certain
	return piece
}
