package infer

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"ptune/internal/failure"
)

// advance continues all texts by a token, and by the guesses that prove right.
func (e *Engine) advance() error {
	var live []*Handle
	for _, h := range e.running {
		if h.unread == 0 {
			live = append(live, h)
		}
	}
	if len(live) == 0 {
		return nil
	}
	seqs, ids := make([]int, len(live)), make([][]int32, len(live))
	for k, h := range live {
		h.guessed = nil
		if most := min(e.GuessRows/len(live), e.d.Room(h.seq)) - 1; most > 0 {
			h.guessed = guess(slices.Concat(h.IDs, h.ids), minMatch+h.failed/failuresPerToken, most)
		}
		seqs[k], ids[k] = h.seq, append(h.ids[len(h.ids)-1:len(h.ids):len(h.ids)], h.guessed...)
	}
	logits, err := e.d.Next(seqs, ids)
	if err != nil {
		return err
	}
	for _, h := range live {
		rows := logits[:1+len(h.guessed)]
		logits = logits[len(rows):]
		if h.err == nil { // Show of another request may have cancelled this one
			e.accept(h, rows)
		}
	}
	return nil
}

// accept takes tokens from the rows of logits until a guess proves wrong, drops the later guesses, and
// removes a text that has ended.
func (e *Engine) accept(h *Handle, rows [][]float32) {
	wrong := h.accept(rows, e.d.Room(h.seq)+len(h.guessed), &e.Options)
	switch {
	case h.err != nil: // Show has cancelled it, or its logits are NaN
		h.result = nil
		if slices.Contains(e.running, h) {
			e.leave(h)
		}
	case h.result != nil:
		e.leave(h)
	default:
		e.d.Drop(h.seq, wrong)
	}
}

// accept takes tokens from the rows and returns the number of wrong guesses. room is the number of
// tokens that the text can grow by after the first.
func (h *Handle) accept(rows [][]float32, room int, o *Options) (wrong int) {
	for k, row := range rows {
		id, more := h.choose(row)
		if more && k == room {
			h.finish(FinishLength)
			more = false
		}
		if h.err == nil && o.Decode != nil && (!more || h.Show != nil || len(h.Stop) > 0) {
			if piece := h.settle(o, !more); h.Show != nil && piece != "" {
				h.Show(piece)
			}
		}
		if h.result != nil || h.err != nil || k == len(h.guessed) {
			return 0
		}
		if h.guessed[k] != id {
			if k == 0 {
				h.failed++
			}
			return len(h.guessed) - k
		}
		h.failed = 0
	}
	return 0
}

// A guess needs the last minMatch tokens to have occurred before, and one more token for every
// failuresPerToken wrong guesses in a row. Without this, a text that counts up takes 20 % longer.
const (
	minMatch         = 2
	failuresPerToken = 6
)

// guess returns at most most tokens: those that followed the last earlier occurrence of the last match
// tokens. Texts repeat themselves and their input (prompt lookup decoding, Saxena 2023).
func guess(ids []int32, match, most int) []int32 {
	end := len(ids) - match
	for at := end - 1; at >= 0; at-- {
		if slices.Equal(ids[at:at+match], ids[end:]) {
			n := len(ids)
			for k := range most { // a guess may repeat itself
				ids = append(ids, ids[at+match+k])
			}
			return ids[n:]
		}
	}
	return nil
}

// ErrNaN is wrapped by the error of a text for which the model finds no next token, and of labels for which
// it finds no likelihood. It is a usage error.
var ErrNaN = failure.Usage(errors.New("the model's output is NaN: the prompt or the base is damaged"))

// choose takes the next token. more is false if it ends the text.
func (h *Handle) choose(logits []float32) (id int32, more bool) {
	if h.MaxTokens <= 0 {
		h.finish(FinishLength)
		return 0, false
	}
	id = h.sample.next(logits, h.IDs, h.ids)
	if v := logits[id]; v-v != 0 { // NaN or infinite
		h.err = ErrNaN
		return 0, false
	}
	if slices.Contains(h.EOS, id) {
		h.finish(FinishEOS)
		return id, false
	}
	h.ids = append(h.ids, id)
	if h.Request.Logprobs > 0 {
		h.logs = append(h.logs, logprobOf(logits, id, h.Request.Logprobs-1))
	}
	if len(h.ids) == h.MaxTokens {
		h.finish(FinishLength)
		return id, false
	}
	return id, true
}

func (h *Handle) finish(reason string) {
	h.result = &Result{IDs: h.ids, FinishReason: reason, Logprobs: h.logs}
}

// settle returns the piece of the text that became certain. Unless this is the end, that excludes the
// bytes of an unfinished character, the text of unsettled tokens and what may be the beginning of a
// stop text.
func (h *Handle) settle(o *Options, end bool) string {
	s := Continuation(o.Decode, h.IDs, h.ids)
	for _, stop := range h.Stop {
		if i := strings.Index(s, stop); i >= 0 {
			s, end = s[:i], true
			h.finish(FinishStop)
		}
	}
	certain := len(s)
	if !end {
		settled := s
		if o.Unsettled != nil {
			if n := o.Unsettled(h.ids); n > 0 {
				settled = Continuation(o.Decode, h.IDs, h.ids[:len(h.ids)-n])
			}
		}
		certain = len(strings.TrimRight(settled, string(utf8.RuneError)))
		for _, stop := range h.Stop {
			for n := min(len(stop)-1, certain); n > 0; n-- {
				if strings.HasPrefix(stop, s[certain-n:certain]) {
					certain -= n
					break
				}
			}
		}
	}
	if h.result != nil {
		h.result.Text = s
	}
	if certain <= h.shown {
		return ""
	}
	piece := s[h.shown:certain]
	h.shown = certain
	return piece
}

// decodeWith is the number of tokens before the generated ones that are decoded with them: some
// tokenizers drop the first space of a text.
const decodeWith = 4

// Continuation returns the text of ids that follow others.
func Continuation(decode func([]int32) string, before, ids []int32) string {
	before = before[max(0, len(before)-decodeWith):]
	all := decode(slices.Concat(before, ids))
	if text, ok := strings.CutPrefix(all, decode(before)); ok {
		return text
	}
	return decode(ids)
}
