package tokenize

import (
	"encoding/json"
	"slices"
)

// step is a normalizer or pre-tokenizer of tokenizer.json.
type step struct {
	Type           string            `json:"type"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	Prepend        string            `json:"prepend"`
	PrependScheme  *string           `json:"prepend_scheme"`
	AddPrefixSpace *bool             `json:"add_prefix_space"`
}

// prepends reports whether a normalizer or pre-tokenizer puts a mark for a space before a text, as those of
// SentencePiece do. A byte-level pre-tokenizer is not asked: with it, targets are encoded alone.
func prepends(raw json.RawMessage) bool {
	var s step
	if len(raw) == 0 || json.Unmarshal(raw, &s) != nil {
		return false
	}
	switch s.Type {
	case "Sequence":
		return slices.ContainsFunc(append(s.Normalizers, s.PreTokenizers...), prepends)
	case "Prepend":
		return s.Prepend != ""
	case "Metaspace":
		if s.PrependScheme != nil {
			return *s.PrependScheme != "never"
		}
		return s.AddPrefixSpace == nil || *s.AddPrefixSpace // in older files
	}
	return false
}

// anchors are texts that stand in for an input. A tokenizer merges none of them with all targets.
var anchors = []string{"\n", "a", "0", ".", "é"}

// EncodeAfter returns the ids of a text that continues head: those after the ids of head in the ids of
// both. If the tokenizer merges across the border, or head is empty, another text takes the place of
// head: where no token spans the border, the ids after it do not depend on what is before. A tokenizer
// that puts nothing before a text gives it the ids it has alone.
func (t *Tokenizer) EncodeAfter(head, text string) ([]int32, error) {
	alone, err := t.Encode(text)
	if err != nil || !t.Prepends || text == "" {
		return alone, err
	}
	for i, anchor := range append([]string{head}, anchors...) {
		if anchor == "" {
			continue
		}
		before, err := t.Encode(anchor)
		if err != nil || len(before) == 0 || i > 0 && t.Decode(before) != anchor {
			continue
		}
		if before[len(before)-1] == t.unknown {
			continue // it can be one token with an unknown character after it
		}
		both, err := t.Encode(anchor + text)
		if n := len(before); err == nil && len(both) > n && slices.Equal(both[:n], before) {
			return both[n:], nil
		}
	}
	return alone, nil
}
