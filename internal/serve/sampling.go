package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"

	"ptune/internal/infer"
)

// sampling is the fields that completions and chats have in common. top_k, min_p and
// repetition_penalty are vLLM's.
type sampling struct {
	Model             string          `json:"model"`
	MaxTokens         *int            `json:"max_tokens"`
	Temperature       *float64        `json:"temperature"`
	TopP              *float64        `json:"top_p"`
	TopK              *int            `json:"top_k"`
	MinP              *float64        `json:"min_p"`
	RepetitionPenalty *float64        `json:"repetition_penalty"`
	Seed              *int64          `json:"seed"`
	N                 *int            `json:"n"`
	Stop              list[string]    `json:"stop"`
	Stream            bool            `json:"stream"`
	StreamOptions     json.RawMessage `json:"stream_options"`

	withUsage bool // of stream_options; request sets it
}

// streamOptions is stream_options. Obfuscation is extra text of OpenAI's events that hides their lengths.
type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// neutralFields are fields of OpenAI's API that are accepted with the value that changes nothing, or that
// tell the provider about the client.
var neutralFields = map[string]string{
	"frequency_penalty": "0", "presence_penalty": "0", "logit_bias": "{}",
	"user": "*", "safety_identifier": "*", "prompt_cache_key": "*",
}

// merged returns neutralFields and others.
func merged(others map[string]string) map[string]string {
	all := maps.Clone(neutralFields)
	maps.Copy(all, others)
	return all
}

// Limits of a request.
const (
	maxChoices = 128 // n times the number of prompts
	maxStops   = 16
	maxStop    = 1024 // bytes
)

func orElse[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// request returns what the requests of all choices have in common. most is the tokens that the client
// asks for, otherwise those of a client that does not.
func (s *Server) request(p *sampling, most *int, otherwise int) (infer.Request, error) {
	r := infer.Request{
		Sampling: infer.Sampling{
			Temperature: orElse(p.Temperature, 1), TopP: orElse(p.TopP, 1), TopK: max(0, orElse(p.TopK, 0)),
			MinP: orElse(p.MinP, 0), RepetitionPenalty: orElse(p.RepetitionPenalty, 1),
			Seed: rand.Uint64(),
		},
		MaxTokens: min(otherwise, s.MaxTokens), EOS: s.base.EOS, Stop: p.Stop,
	}
	if p.Seed != nil {
		r.Seed = uint64(*p.Seed)
	}
	for _, x := range []struct {
		name    string
		ok      bool
		value   any
		allowed string
	}{
		{"temperature", r.Temperature >= 0, r.Temperature, "at least 0"},
		{"top_p", r.TopP > 0 && r.TopP <= 1, r.TopP, "above 0 and at most 1"},
		{"top_k", orElse(p.TopK, 0) >= -1, orElse(p.TopK, 0), "at least 1, or 0 or -1 for all"},
		{"min_p", r.MinP >= 0 && r.MinP <= 1, r.MinP, "0 to 1"},
		{"repetition_penalty", r.RepetitionPenalty >= infer.MinPenalty && r.RepetitionPenalty <= infer.MaxPenalty,
			r.RepetitionPenalty, fmt.Sprintf("%g to %g", infer.MinPenalty, infer.MaxPenalty)},
		{"n", orElse(p.N, 1) >= 1 && orElse(p.N, 1) <= s.mostChoices(), orElse(p.N, 1),
			fmt.Sprintf("1 to %d", s.mostChoices())},
		{"stop", len(p.Stop) <= maxStops, len(p.Stop), fmt.Sprintf("at most %d texts", maxStops)},
		{"max_tokens", orElse(most, 1) >= 0, orElse(most, 1), "at least 0"},
		{"max_tokens", orElse(most, 1) <= s.MaxTokens, orElse(most, 1),
			fmt.Sprintf("at most %d, this server's limit", s.MaxTokens)},
		{"stream_options", !given(p.StreamOptions) || p.Stream, "set", "it with stream only"},
	} {
		if !x.ok {
			return r, invalid(x.name, "%s is %v, want %s", x.name, x.value, x.allowed)
		}
	}
	if given(p.StreamOptions) {
		var o streamOptions
		neutral := map[string]string{"include_obfuscation": "*"}
		if err := decodeObject(p.StreamOptions, &o, "stream_options", neutral); err != nil {
			return r, err
		}
		p.withUsage = o.IncludeUsage
	}
	if i := slices.IndexFunc(p.Stop, func(stop string) bool { return stop == "" || len(stop) > maxStop }); i >= 0 {
		return r, invalid("stop", "stop has a text of %d bytes, want 1 to %d", len(p.Stop[i]), maxStop)
	}
	if most != nil {
		r.MaxTokens = *most
	}
	return r, nil
}

// asked is the requests of a completion or chat.
type asked struct {
	model    *served
	requests []infer.Request // n for each input
	prompt   int             // tokens of the inputs
}

// mostChoices returns the most choices of a request: more would never find a place.
func (s *Server) mostChoices() int { return min(maxChoices, cap(s.loop.places)) }

// checkChoices refuses a request with more choices for n inputs than are ever made together.
func (s *Server) checkChoices(p *sampling, inputs int) error {
	n := orElse(p.N, 1)
	if n*inputs <= s.mostChoices() {
		return nil
	}
	return invalid("n", "%d prompts with n %d are %d choices, want at most %d", inputs, n, n*inputs, s.mostChoices())
}

// choices returns n requests for each input, which are common but for the input.
func (s *Server) choices(m *served, p *sampling, common infer.Request, inputs [][]int32) (*asked, error) {
	a := &asked{model: m}
	n := orElse(p.N, 1)
	for _, ids := range inputs {
		one := common
		if len(ids)+m.rows == 0 {
			return nil, invalid("prompt", "the prompt has no tokens: %q needs at least one to continue", m.id)
		}
		if err := s.checkLength(m, len(ids)+min(1, one.MaxTokens)); err != nil {
			return nil, err
		}
		one.IDs = ids
		one.MaxTokens = min(one.MaxTokens, s.length-m.rows-len(ids)) // the text then ends with "length"
		a.prompt += len(ids)
		for range n {
			one.Stream = len(a.requests)
			a.requests = append(a.requests, one)
		}
	}
	return a, nil
}

// generate returns the results of requests.
func (s *Server) generate(ctx context.Context, w http.ResponseWriter, a *asked) ([]*infer.Result, *usage, error) {
	used := &usage{Prompt: a.prompt}
	note(w, a.model.id, used)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked, err := s.loop.begin(ctx, a.model.engine, a.requests, false)
	if err != nil {
		return nil, nil, err
	}
	var results []*infer.Result
	for _, t := range asked.tickets {
		result, err := s.loop.wait(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		results = append(results, result)
		used.add(result)
	}
	return results, used, nil
}

// usage counts tokens as OpenAI does. A soft prompt's rows are no tokens of the client, so they do not
// count.
type usage struct {
	Prompt     int          `json:"prompt_tokens"`
	Completion int          `json:"completion_tokens"`
	Total      int          `json:"total_tokens"`
	Details    usageDetails `json:"prompt_tokens_details"`
}

type usageDetails struct {
	Cached int `json:"cached_tokens"` // of the client's tokens none is kept
}

// add counts the tokens that the model has generated for a result, the end token included.
func (u *usage) add(r *infer.Result) {
	u.Completion += len(r.IDs)
	if r.FinishReason == infer.FinishEOS {
		u.Completion++
	}
	u.Total = u.Prompt + u.Completion
}

// finishReason returns why a text ended, in OpenAI's words.
func finishReason(r *infer.Result) string {
	if r.FinishReason == infer.FinishLength {
		return "length"
	}
	return "stop"
}
