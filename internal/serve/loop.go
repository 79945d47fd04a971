package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"ptune/internal/infer"
	"ptune/internal/model"
)

// loop owns the engine: only its goroutine uses it. Others post functions to it, which it calls between
// two steps.
type loop struct {
	engine  *infer.Engine
	decoder *model.Decoder
	places  chan struct{} // one for each request that is waiting or in work
	tickets []*ticket     // in the engine
	metrics *metrics

	mu     sync.Mutex
	posted []func()
	wake   chan struct{}
	ending chan struct{} // closed by stop
	ended  chan struct{} // closed by the goroutine
	broken error         // set before ended is closed; nil: stop was called
}

func newLoop(d *model.Decoder, o infer.Options, places int, m *metrics) *loop {
	return &loop{
		metrics: m, engine: infer.New(d, o), decoder: d, places: make(chan struct{}, places),
		wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}),
	}
}

// start runs the loop in a goroutine until stop is called. After a panic, ended is closed and broken is
// set: what was being computed may be half done, so nothing more can be asked.
func (l *loop) start(ctx context.Context) {
	go func() {
		defer close(l.ended)
		defer func() {
			if p := recover(); p != nil { // threads of the decoder may still use its memory
				l.broken = fmt.Errorf("the engine has panicked: %v\n%s", p, debug.Stack())
			}
		}()
		l.run(ctx)
		l.decoder.Close()
	}()
}

// stop ends the loop and waits for its end. Requests in work are left without an answer.
func (l *loop) stop() {
	close(l.ending)
	<-l.ended
}

func (l *loop) run(ctx context.Context) {
	for {
		l.callPosted()
		if l.engine.Idle() {
			select {
			case <-l.wake:
				continue
			case <-l.ending:
				return
			}
		}
		select {
		case <-l.ending:
			return
		default:
		}
		l.engine.ReadTokens = l.inputTokens()
		l.engine.ScoreTokens = l.engine.ReadTokens
		began := time.Now()
		_ = l.engine.Step(ctx) // its requests have the error
		l.metrics.step.Observe(time.Since(began).Seconds())
		l.finish()
	}
}

// inputTokens returns how many tokens of inputs the next step may compute.
func (l *loop) inputTokens() int {
	for _, t := range l.tickets {
		if t.handle.Generated() > 0 {
			return tokensBeside
		}
	}
	return tokensAlone
}

// post has the loop call f between two steps. It never blocks.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// call has the loop call f and returns its error, or errEnding if the loop ends before.
func (l *loop) call(f func() error) error {
	done := make(chan error, 1)
	l.post(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-l.ended:
		return errEnding
	}
}

func (l *loop) callPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// work is the requests of one client in the loop.
type work struct {
	tickets []*ticket
	news    chan struct{} // has an element if a ticket may have a new piece or be over
}

// ticket is a request that a handler has given to the loop.
type ticket struct {
	work    *work
	model   *engineModel
	request infer.Request
	handle  *infer.Handle
	over    chan struct{} // closed when result or err is set
	result  *infer.Result
	err     error
	times

	mu     sync.Mutex
	pieces []piece // that the handler has not taken
	told   int     // log probabilities in pieces so far
}

// piece is text that a request has generated, and its tokens' log probabilities if they are asked for.
type piece struct {
	text string
	logs []infer.Logprob
}

// show adds a piece. It never waits for the handler: a request has at most max_tokens of them.
func (t *ticket) show(text string) {
	logs := t.handle.Logprobs()
	t.mu.Lock()
	t.pieces = append(t.pieces, piece{text, logs[t.told:]})
	t.told = len(logs)
	t.mu.Unlock()
	t.work.tell()
}

// take returns the pieces since the last call as one.
func (t *ticket) take() (p piece) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.pieces {
		p.text += x.text
		p.logs = append(p.logs, x.logs...)
	}
	t.pieces = nil
	return p
}

// tell wakes the handler.
func (w *work) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// engineModel is a soft prompt as the engine has it. Only the loop uses it.
type engineModel struct {
	id      string    // for metrics
	values  []float32 // nil: the base alone
	rows    int
	prompt  *infer.Prompt // nil: not registered, or the base alone
	users   int           // requests in work
	retired bool          // its file was replaced or removed
}

// register adds a model's soft prompt to the engine.
func (l *loop) register(m *engineModel) (err error) {
	if m.values != nil && m.prompt == nil {
		m.prompt, err = l.engine.AddPrompt(m.values, m.rows)
		if err != nil {
			m.prompt = nil
		}
	}
	return err
}

// retire forgets a model's soft prompt after its last request.
func (l *loop) retire(m *engineModel) {
	m.retired = true
	l.release(m)
}

func (l *loop) release(m *engineModel) {
	if m.retired && m.users == 0 && m.prompt != nil {
		l.engine.RemovePrompt(m.prompt)
		m.prompt = nil
	}
}

// begin gives requests to the loop, if there are places for all. They leave the engine when ctx ends.
// A request that the engine refuses has a refused error. With pieces, the tickets get the text while it is
// made.
func (l *loop) begin(ctx context.Context, m *engineModel, requests []infer.Request, pieces bool) (*work, error) {
	for i := range requests {
		select {
		case l.places <- struct{}{}:
		default:
			for range i {
				<-l.places
			}
			l.metrics.rejected.Inc()
			return nil, errBusy
		}
	}
	w, now := &work{news: make(chan struct{}, 1)}, time.Now()
	for _, r := range requests {
		t := &ticket{work: w, model: m, request: r, over: make(chan struct{}), times: times{came: now}}
		if pieces {
			t.request.Show = t.show
		}
		w.tickets = append(w.tickets, t)
	}
	l.post(func() {
		for _, t := range w.tickets {
			l.add(t)
		}
	})
	context.AfterFunc(ctx, func() {
		l.post(func() {
			for _, t := range w.tickets {
				if t.handle != nil {
					l.engine.Cancel(t.handle)
				}
			}
			l.finish()
		})
	})
	return w, nil
}

// refused is the error of a request that could never be answered.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// add adds a request to the engine.
func (l *loop) add(t *ticket) {
	err := l.register(t.model)
	if errors.Is(err, infer.ErrFull) { // it was removed, and what is in work takes its place
		err = &apiError{status: http.StatusServiceUnavailable, Type: "unavailable_error", Code: "cache_full",
			Message: err.Error()}
	}
	if err == nil {
		t.request.Prompt = t.model.prompt
		if t.handle, err = l.engine.Add(t.request); err != nil {
			err = refused{err}
		}
	}
	t.model.users++
	if err != nil {
		t.err = err
		l.end(t)
		return
	}
	l.tickets = append(l.tickets, t)
}

// finish ends the requests that the engine has answered.
func (l *loop) finish() {
	now := time.Now()
	kept := l.tickets[:0]
	for _, t := range l.tickets {
		if t.result, t.err = t.handle.Result(); t.result == nil && t.err == nil {
			kept = append(kept, t)
			continue
		}
		l.metrics.ended(t, now)
		l.end(t)
	}
	clear(l.tickets[len(kept):])
	l.tickets = kept
	l.metrics.note(l, now)
}

// end tells the handler of a request that it is over.
func (l *loop) end(t *ticket) {
	t.model.users--
	l.release(t.model)
	<-l.places
	close(t.over)
	t.work.tell()
}

// failure returns why a request that is over has no result: why ctx ended, if that took it from the engine.
func (t *ticket) failure(ctx context.Context) error {
	if t.err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return t.err
}

// wait returns the result of a request, or why there is none.
func (l *loop) wait(ctx context.Context, t *ticket) (*infer.Result, error) {
	select {
	case <-t.over:
		return t.result, t.failure(ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.ending:
		return nil, errEnding
	}
}
