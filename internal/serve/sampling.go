package serve

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"ptune/internal/infer"
)

// sampling is the fields that completions and chats have in common. top_k, min_p and
// repetition_penalty are vLLM's.
type sampling struct {
	Model             string         `json:"model"`
	MaxTokens         *int           `json:"max_tokens"`
	Temperature       *float64       `json:"temperature"`
	TopP              *float64       `json:"top_p"`
	TopK              *int           `json:"top_k"`
	MinP              *float64       `json:"min_p"`
	RepetitionPenalty *float64       `json:"repetition_penalty"`
	Seed              *int64         `json:"seed"`
	N                 *int           `json:"n"`
	Stop              list[string]   `json:"stop"`
	Stream            bool           `json:"stream"`
	StreamOptions     *streamOptions `json:"stream_options"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// neutralFields are fields of OpenAI's API that are accepted with the value that changes nothing, or that
// tell the provider about the client.
var neutralFields = map[string]string{
	"frequency_penalty": "0", "presence_penalty": "0", "logit_bias": "{}",
	"user": "*", "safety_identifier": "*", "prompt_cache_key": "*",
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

// request returns what the requests of all choices have in common. otherwise is max_tokens if it is not
// given.
func (s *Server) request(p *sampling, otherwise int) (infer.Request, error) {
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
		{"repetition_penalty", r.RepetitionPenalty > 0, r.RepetitionPenalty, "above 0"},
		{"n", orElse(p.N, 1) >= 1 && orElse(p.N, 1) <= maxChoices, orElse(p.N, 1), fmt.Sprintf("1 to %d", maxChoices)},
		{"stop", len(p.Stop) <= maxStops, len(p.Stop), fmt.Sprintf("at most %d texts", maxStops)},
		{"max_tokens", orElse(p.MaxTokens, 1) >= 0, orElse(p.MaxTokens, 1), "at least 0"},
		{"max_tokens", orElse(p.MaxTokens, 1) <= s.MaxTokens, orElse(p.MaxTokens, 1),
			fmt.Sprintf("at most %d, this server's limit", s.MaxTokens)},
		{"stream_options", p.StreamOptions == nil || p.Stream, "set", "it with stream only"},
	} {
		if !x.ok {
			return r, invalid(x.name, "%s is %v, want %s", x.name, x.value, x.allowed)
		}
	}
	if i := slices.IndexFunc(p.Stop, func(stop string) bool { return stop == "" || len(stop) > maxStop }); i >= 0 {
		return r, invalid("stop", "stop has a text of %d bytes, want 1 to %d", len(p.Stop[i]), maxStop)
	}
	if p.MaxTokens != nil {
		r.MaxTokens = *p.MaxTokens
	}
	return r, nil
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

// generated returns how many tokens the model has generated for a result, the end token included.
func generated(r *infer.Result) int {
	if r.FinishReason == infer.FinishEOS {
		return len(r.IDs) + 1
	}
	return len(r.IDs)
}

// finishReason returns why a text ended, in OpenAI's words.
func finishReason(r *infer.Result) string {
	if r.FinishReason == infer.FinishLength {
		return "length"
	}
	return "stop"
}
