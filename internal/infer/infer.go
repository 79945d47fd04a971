// Package infer answers requests with one base model: it continues texts and scores labels, each
// request after its own soft prompt or none. Requests join and leave between any two steps. It knows
// no flags, streams or protocols, and not how logits are made.
package infer

import (
	"context"
	"errors"
	"slices"

	"ptune/internal/batch"
)

// Decoder computes logits, as model.Decoder does. Logits are valid until the next call.
type Decoder interface {
	// AddPrompt registers a soft prompt of [P, D] values and returns its handle.
	AddPrompt(values []float32) (int, error)
	RemovePrompt(prompt int)
	// Check returns the error with which Add would refuse the text even if nothing else were in work.
	Check(batch.Text) error
	// Add begins texts, which all have a soft prompt or all have none, and returns a handle for each
	// and the logits of what follows it. If the error wraps batch.ErrFull, there is not enough
	// memory now, and nothing has changed.
	Add(texts []batch.Text) (seqs []int, logits [][]float32, err error)
	// Next adds tokens to each text and returns the logits of what follows each token.
	Next(seqs []int, ids [][]int32) ([][]float32, error)
	// Read adds tokens to each text and returns the logits of what follows the last of them.
	Read(seqs []int, ids [][]int32) ([][]float32, error)
	// Drop takes back the last n tokens of a text.
	Drop(seq, n int)
	// Room is how many tokens a text can grow by.
	Room(seq int) int
	Remove(seq int)
}

// Options are what all requests have in common. GuessRows is the number of rows that one step computes
// for little more than the cost of one (model.RowsAtOnce). Rows that the texts do not need are filled
// with guessed tokens.
type Options struct {
	Scorer      Scorer                   // of requests with labels; nil: there are none
	Trees       TextTrees                // the decoder: it scores labels after cached soft prompts; nil: Scorer does
	ScoreTokens int                      // tokens of their inputs and labels scored at a time
	Texts       int                      // the most texts continued at a time; 0: any number
	ReadTokens  int                      // the most tokens of inputs that one step reads; 0: any number
	GuessRows   int                      // 0: no guesses
	Decode      func(ids []int32) string // the text of token ids; nil: results have no text
	Unsettled   func(ids []int32) int    // how many of the last ids have a text that may still change; nil: none
}

// ErrFull is wrapped by the error of a soft prompt, and of a request, for which there is not enough memory
// for keys and values beside what is registered or in work.
var ErrFull = batch.ErrFull

// Engine works on requests. It is not safe for concurrent use.
type Engine struct {
	Options
	d       Decoder
	waiting []*Handle
	running []*Handle // being read or continued, in the order in which they joined
}

// New returns an engine without requests.
func New(d Decoder, o Options) *Engine { return &Engine{Options: o, d: d} }

// Prompt is a soft prompt that requests can follow.
type Prompt struct {
	values  []float32
	rows    int
	handle  int // the decoder's
	users   int // requests that are not over
	removed bool
}

// AddPrompt registers a soft prompt of [rows, D] values, which must not change.
func (e *Engine) AddPrompt(values []float32, rows int) (*Prompt, error) {
	handle, err := e.d.AddPrompt(values)
	return &Prompt{values: values, rows: rows, handle: handle}, err
}

// RemovePrompt forgets a soft prompt. Requests that were added before are still answered.
func (e *Engine) RemovePrompt(p *Prompt) {
	if !p.removed {
		p.removed = true
		e.free(p)
	}
}

// free gives the room of a removed prompt back after its last request.
func (e *Engine) free(p *Prompt) {
	if p.removed && p.users == 0 {
		e.d.RemovePrompt(p.handle)
	}
}

// Request is a text to continue or, with Labels, an input whose labels are scored.
type Request struct {
	Prompt *Prompt // nil: the base model alone
	IDs    []int32 // the input
	Labels [][]int32

	Sampling
	MaxTokens int
	EOS       []int32            // tokens that end the text
	Stop      []string           // texts that end it; they are left out
	Show      func(piece string) // gets each piece of text once it can no longer change; nil: none
	// Logprobs records log p of each generated token, and of that many of the likeliest ones minus one: 1
	// is the token alone. 0: none is recorded.
	Logprobs int
}

// Why a text ended.
const (
	FinishEOS    = "eos"
	FinishStop   = "stop"
	FinishLength = "length"
	FinishLabel  = "label" // a Generator chose one of the labels
	FinishBlank  = "blank" // a Generator was given a blank line
)

// Result is the answer to a request.
type Result struct {
	Text         string
	IDs          []int32 // the tokens generated, without the end token
	FinishReason string
	Scores       []float64 // −log p of each label
	Logprobs     []Logprob // of IDs, if the request asks for them
}

// Handle is a request in work.
type Handle struct {
	Request
	seq     int // the decoder's handle
	unread  int // tokens at the end of IDs that the decoder has not got
	sample  *sampler
	ids     []int32 // generated
	logs    []Logprob
	guessed []int32 // added after the last of ids
	failed  int     // times in a row that the first guess was wrong
	shown   int     // bytes of the text that were shown
	result  *Result
	err     error
}

// Result returns the answer, or why there is none; both are nil while the request is in work.
func (h *Handle) Result() (*Result, error) { return h.result, h.err }

// Generated returns the number of tokens generated so far, without the end token.
func (h *Handle) Generated() int { return len(h.ids) }

// Begun reports whether the text is being read or continued, or has been.
func (h *Handle) Begun() bool { return h.seq != 0 }

// Logprobs returns what Request.Logprobs has recorded so far.
func (h *Handle) Logprobs() []Logprob { return h.logs }

// text is the request as the decoder takes it, without its unread tokens.
func (h *Handle) text() batch.Text {
	ids := h.IDs[:len(h.IDs)-h.unread]
	t := batch.Text{Prompt: batch.NoPrompt, IDs: ids, Room: h.unread + h.MaxTokens}
	if h.Prompt != nil {
		t.Prompt = h.Prompt.handle
	}
	return t
}

// Check returns the error with which Add would refuse a request.
func (e *Engine) Check(r Request) error {
	if r.Labels != nil && e.Scorer == nil {
		return errors.New("this engine scores no labels")
	}
	h := &Handle{Request: r}
	if r.Labels != nil {
		h.IDs, h.MaxTokens = longestText(r), 0
		if len(h.IDs) == 0 {
			return nil
		}
	}
	return e.d.Check(h.text())
}

// longestText returns the input of a request with labels and its longest label, without the label's last
// token, which is only predicted.
func longestText(r Request) []int32 {
	var longest []int32
	for _, l := range r.Labels {
		if len(l) > len(longest) {
			longest = l
		}
	}
	return slices.Concat(r.IDs, longest[:max(0, len(longest)-1)])
}

// Add queues a request for the next steps. It refuses one that could never be answered.
func (e *Engine) Add(r Request) (*Handle, error) {
	if err := e.Check(r); err != nil {
		return nil, err
	}
	h := &Handle{Request: r, sample: newSampler(r.Sampling)}
	if r.Prompt != nil {
		r.Prompt.users++
	}
	e.waiting = append(e.waiting, h)
	return h, nil
}

// Cancel ends a request at once. Its result is context.Canceled unless it was over.
func (e *Engine) Cancel(h *Handle) {
	if h.result == nil && h.err == nil {
		h.err = context.Canceled
		e.leave(h)
	}
}

// leave takes a request out that has a result or an error.
func (e *Engine) leave(h *Handle) {
	is := func(other *Handle) bool { return other == h }
	if slices.ContainsFunc(e.running, is) {
		e.d.Remove(h.seq)
	}
	e.waiting, e.running = slices.DeleteFunc(e.waiting, is), slices.DeleteFunc(e.running, is)
	if h.Prompt != nil {
		h.Prompt.users--
		e.free(h.Prompt)
	}
}

// Idle reports whether all requests are over.
func (e *Engine) Idle() bool { return len(e.waiting)+len(e.running) == 0 }

// Step takes up waiting requests, as many as there is room for, and continues all texts in work by at
// least one token each. Requests are taken up in the order in which they were added. Of those with
// labels, as many are scored as ScoreTokens allows. If the model fails on a text, every request is
// over; if it fails on labels, only their request is.
func (e *Engine) Step(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	full := e.score()
	read, err := e.read()
	if err == nil && !full { // else no text joins that would take what becomes free
		err = e.join(read)
	}
	if err == nil {
		err = e.advance()
	}
	if err != nil {
		for _, h := range slices.Concat(e.waiting, e.running) {
			h.err = err
			e.leave(h)
		}
	}
	return err
}

// Generate answers requests and returns their results in order. Other requests of the engine are
// worked on as well. After an error none of the requests is left.
func (e *Engine) Generate(ctx context.Context, requests []Request) ([]Result, error) {
	handles := make([]*Handle, 0, len(requests))
	defer func() {
		for _, h := range handles {
			e.Cancel(h)
		}
	}()
	for _, r := range requests {
		h, err := e.Add(r)
		if err != nil {
			return nil, err
		}
		handles = append(handles, h)
	}
	results := make([]Result, len(handles))
	for i, h := range handles {
		for h.result == nil && h.err == nil {
			if err := e.Step(ctx); err != nil {
				return nil, err
			}
		}
		if h.err != nil {
			return nil, h.err
		}
		results[i] = *h.result
	}
	return results, nil
}

// joinShare is the share of Options.Texts, 1/joinShare, that is begun together where more texts wait than
// there is room for: passes over one new input at a time cost more than places that are empty for some
// tokens.
const joinShare = 4

// read has the decoder read unread inputs of texts that have been begun, at most ReadTokens of them, and
// returns how many tokens it read. A text whose whole input is read is continued.
func (e *Engine) read() (tokens int, err error) {
	var live []*Handle
	var seqs []int
	var ids [][]int32
	for _, h := range e.running {
		if n := min(h.unread, e.ReadTokens-tokens); n > 0 {
			from := len(h.IDs) - h.unread
			live, seqs, ids = append(live, h), append(seqs, h.seq), append(ids, h.IDs[from:from+n])
			tokens += n
		}
	}
	if tokens == 0 {
		return 0, nil
	}
	logits, err := e.d.Read(seqs, ids)
	if err != nil {
		return 0, err
	}
	for i, h := range live {
		if h.unread -= len(ids[i]); h.unread == 0 && h.err == nil {
			e.accept(h, logits[i:i+1])
		}
	}
	return tokens, nil
}

// join begins waiting texts, unless there will soon be room for more of them. This step has read that many
// tokens of inputs.
func (e *Engine) join(read int) error {
	texts, free := 0, e.Texts-len(e.running)
	for _, h := range e.waiting {
		if h.Labels == nil {
			texts++
		}
	}
	if e.Texts > 0 && texts > free && free < e.Texts/joinShare {
		return nil
	}
	return e.begin(read)
}

// follows reports whether a text has the input of the one before it, which is read once for both.
func (h *Handle) follows(before *Handle) bool {
	return before.unread == 0 && h.Prompt == before.Prompt && slices.Equal(h.IDs, before.IDs)
}

// begin begins the texts at the head of the queue that can be begun together. This step has read that many
// tokens of inputs: of an input that exceeds ReadTokens, only the beginning is read.
func (e *Engine) begin(read int) error {
	var texts []batch.Text
	var queue []*Handle // of texts
	for _, h := range e.waiting {
		if h.Labels != nil {
			continue
		}
		full := e.Texts > 0 && len(e.running)+len(queue) >= e.Texts
		if full || queue != nil && (h.Prompt == nil) != (queue[0].Prompt == nil) {
			break
		}
		if e.ReadTokens > 0 && (queue == nil || !h.follows(queue[len(queue)-1])) {
			if read >= e.ReadTokens {
				break
			}
			h.unread = max(0, len(h.IDs)-(e.ReadTokens-read))
			read += len(h.IDs) - h.unread
		}
		texts, queue = append(texts, h.text()), append(queue, h)
	}
	if len(texts) == 0 {
		return nil
	}
	seqs, logits, err := e.d.Add(texts)
	for errors.Is(err, batch.ErrFull) && len(texts) > 1 {
		texts = texts[:len(texts)/2]
		seqs, logits, err = e.d.Add(texts)
	}
	if errors.Is(err, batch.ErrFull) {
		if len(e.running) == 0 { // nothing will become free
			queue[0].err = err
			e.leave(queue[0])
		}
		return nil
	}
	if err != nil {
		return err
	}
	joined := queue[:len(texts)]
	e.waiting = slices.DeleteFunc(e.waiting, func(h *Handle) bool { return slices.Contains(joined, h) })
	e.running = append(e.running, joined...)
	for i, h := range joined {
		h.seq = seqs[i]
	}
	for i, h := range joined {
		if h.err == nil && h.unread == 0 { // Show of another request may have cancelled this one
			e.accept(h, logits[i:i+1])
		}
	}
	return nil
}
