package infer

import "math"

// Logprob is log p of a token before temperature, penalties and other choices, and the tokens that
// were likeliest in its place, by falling log p.
type Logprob struct {
	ID   int32
	LogP float64
	Top  []TokenLogprob
}

// TokenLogprob is a token and its log p.
type TokenLogprob struct {
	ID   int32
	LogP float64
}

// logprobOf returns log p of a token, and the top likeliest ones. Of equal ones the lower id comes first.
func logprobOf(logits []float32, id int32, top int) Logprob {
	most := logits[0]
	for _, v := range logits {
		most = max(most, v)
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v - most))
	}
	norm := float64(most) + math.Log(sum)
	l := Logprob{ID: id, LogP: float64(logits[id]) - norm}
	for other, v := range logits {
		logp := float64(v) - norm
		at := len(l.Top)
		for at > 0 && l.Top[at-1].LogP < logp {
			at--
		}
		if at >= top {
			continue
		}
		if len(l.Top) < top {
			l.Top = append(l.Top, TokenLogprob{})
		}
		copy(l.Top[at+1:], l.Top[at:])
		l.Top[at] = TokenLogprob{int32(other), logp}
	}
	return l
}
