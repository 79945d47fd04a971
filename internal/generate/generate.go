// Package generate continues texts token by token: it chooses tokens, knows when a text ends, and hands out text as it
// becomes certain. It does not know how logits are made.
package generate

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"
)

// Decoder makes logits. Rows of logits are valid until the next call.
type Decoder interface {
	// Next adds tokens to each of the texts and returns the logits of what follows each token, text after text.
	Next(texts []int, ids [][]int32) ([][]float32, error)
	// Drop takes back the last n tokens of a text.
	Drop(text, n int)
	// Room is how many tokens a text can grow by.
	Room(text int) int
}

// Options are how texts are continued.
type Options struct {
	Sampling
	MaxTokens int
	EOS       []int32  // tokens that end a text
	Stop      []string // texts that end a text; they are left out
	Rows      int      // tokens at a time that take little longer than one: where fewer texts are in work, guesses of theirs fill these up; 0: none do
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
	number  int
	said    []int32 // what it began with
	decode  func(ids []int32) string
	sample  *sampler
	ids     []int32
	guessed []int32 // what was added behind the last of ids
	failed  int     // times in a row that the first guess was wrong
	shown   int     // bytes of the text that were handed out
	result  *Result
}

// Run continues texts that have said so much, each from its first logits. decode turns the ids generated for a text into their text; show,
// if not nil, is given each piece of a text as soon as it can no longer change.
func Run(ctx context.Context, d Decoder, first [][]float32, said func(text int) []int32, decode func(text int, ids []int32) string, o Options, show func(text int, piece string)) ([]Result, error) {
	texts := make([]*text, len(first))
	live := make([]int, len(first))
	logits := first
	for i := range texts {
		texts[i] = &text{number: i, said: said(i), decode: func(ids []int32) string { return decode(i, ids) }, sample: newSampler(o.Sampling, i)}
		live[i] = i
	}
	for len(live) > 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var next []int
		for _, i := range live {
			t := texts[i]
			rows := logits[:1+len(t.guessed)]
			logits = logits[len(rows):]
			wrong := t.take(rows, d.Room(i)+len(t.guessed), o, show)
			if t.result == nil {
				d.Drop(i, wrong)
				next = append(next, i)
			}
		}
		live = next
		if len(live) == 0 {
			break
		}
		ids := make([][]int32, len(live))
		for k, i := range live {
			t := texts[i]
			t.guessed = nil
			if most := min(o.Rows/len(live), d.Room(i)) - 1; most > 0 {
				t.guessed = guess(slices.Concat(t.said, t.ids), alike+t.failed/patience, most)
			}
			ids[k] = append(t.ids[len(t.ids)-1:len(t.ids):len(t.ids)], t.guessed...)
		}
		var err error
		if logits, err = d.Next(live, ids); err != nil {
			return nil, err
		}
	}
	results := make([]Result, len(texts))
	for i, t := range texts {
		results[i] = *t.result
	}
	return results, nil
}

// take chooses a token by each row of logits, as long as what the row follows is what was chosen before it. The text has room for so
// many tokens behind the first. It returns how many guesses were wrong.
func (t *text) take(rows [][]float32, room int, o Options, show func(text int, piece string)) (wrong int) {
	for k, row := range rows {
		id, on := t.choose(row, o)
		if on && k == room {
			t.finish(FinishLength)
			on = false
		}
		if !on || show != nil || len(o.Stop) > 0 { // otherwise nobody looks at the text before its end
			if piece := t.settle(o, !on); show != nil && piece != "" {
				show(t.number, piece)
			}
		}
		if t.result != nil || k == len(t.guessed) {
			return 0
		}
		if t.guessed[k] != id {
			if k == 0 {
				t.failed++
			}
			return len(t.guessed) - k
		}
		t.failed = 0
	}
	return 0
}

// A guess asks for so many tokens to be there once more, and for one more after so many wrong ones in a row: numbers that count up, say,
// would take a fifth longer.
const (
	alike    = 2
	patience = 6
)

// guess is what followed when a text last said the tokens that it ends with, so many of them; at most that many tokens. Texts repeat
// themselves and what they were asked (prompt lookup decoding, Saxena 2023).
func guess(ids []int32, alike, most int) []int32 {
	end := len(ids) - alike
	for at := end - 1; at >= 0; at-- {
		if slices.Equal(ids[at:at+alike], ids[end:]) {
			n := len(ids)
			for k := range most { // what is guessed may go on from itself
				ids = append(ids, ids[at+alike+k])
			}
			return ids[n:]
		}
	}
	return nil
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
