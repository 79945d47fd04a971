package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// pingTime is how long a stream is silent before a comment keeps its connection open.
const pingTime = 15 * time.Second

// events writes server-sent events. A client that does not read ends them.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
	began   bool
}

// send writes an event with a value as JSON.
func (e *events) send(v any) error {
	var b bytes.Buffer
	b.WriteString("data: ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return e.write(append(b.Bytes(), '\n'))
}

func (e *events) write(text []byte) error {
	if !e.began {
		e.began = true
		header := e.w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-cache")
		header.Set("X-Accel-Buffering", "no") // nginx passes each event on at once
		e.w.WriteHeader(http.StatusOK)
	}
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := e.w.Write(text); err != nil {
		return err
	}
	return e.control.Flush()
}

// stream answers requests with events: part of each new piece of choice i, with the reason if it is the
// last one, then last of the usage if it is asked for. An error before the first event is returned; a
// later one is an event.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, a *asked, withUsage bool,
	part func(i int, p piece, reason *string) any, last func(*usage) any) error {
	used := &usage{Prompt: a.prompt}
	note(w, a.model.id, used)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &events{w: w, control: http.NewResponseController(w)}
	work, err := s.loop.begin(ctx, a.model.engine, a.requests, true)
	if err == nil {
		err = s.pieces(ctx, e, work, used, part)
	}
	if err == nil && withUsage {
		err = e.send(last(used))
	}
	if err == nil {
		return e.write([]byte("data: [DONE]\n\n"))
	}
	if e.began && context.Cause(ctx) != context.Canceled { // the client is there
		_ = e.send(asAPI(err))
	}
	return err
}

// pieces writes an event for each piece until all requests are over.
func (s *Server) pieces(ctx context.Context, e *events, work *work, used *usage,
	part func(i int, p piece, reason *string) any) error {
	ping := time.NewTimer(pingTime)
	defer ping.Stop()
	ended := make([]bool, len(work.tickets))
	for left := len(ended); left > 0; {
		select {
		case <-work.news:
		case <-ping.C:
			if err := e.write([]byte(": waiting\n\n")); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.loop.ending:
			return errEnding
		}
		ping.Reset(pingTime)
		for i, t := range work.tickets {
			if ended[i] {
				continue
			}
			var reason *string
			select {
			case <-t.over:
				if err := t.failure(ctx); err != nil {
					return err
				}
				ended[i] = true
				left--
				text := finishReason(t.result)
				reason = &text
				used.add(t.result)
			default:
			}
			p := t.take()
			if reason != nil {
				p.logs = append(p.logs, t.result.Logprobs[t.told:]...)
			}
			if p.text == "" && len(p.logs) == 0 && reason == nil {
				continue
			}
			if err := e.send(part(i, p, reason)); err != nil {
				return err
			}
		}
	}
	return nil
}
