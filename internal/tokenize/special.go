package tokenize

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/files"
)

// addedToken is a token that is found in a text before the model splits the text.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// parseAdded reads a token as the files beside tokenizer.json write it: its text, or an object.
// special is for tokens that do not say whether they are.
func parseAdded(raw json.RawMessage, special bool) (t addedToken, err error) {
	var o struct {
		addedToken
		Normalized *bool `json:"normalized"`
		Special    *bool `json:"special"`
	}
	if bytes.HasPrefix(raw, []byte("{")) {
		err = json.Unmarshal(raw, &o)
	} else {
		err = json.Unmarshal(raw, &o.Content)
	}
	t = o.addedToken
	t.Special = special
	if o.Special != nil {
		t.Special = *o.Special
	}
	t.Normalized = !t.Special
	if o.Normalized != nil {
		t.Normalized = *o.Normalized
	}
	return t, err
}

// settings are what the files beside tokenizer.json say about special tokens, as transformers 5.23
// reads them.
type settings struct {
	class string // tokenizer_class without Fast
	// named are the tokens of tokenizer_config.json by key: bos_token, eos_token, and others that end in
	// _token.
	named map[string]addedToken
	extra []addedToken // special tokens without a name
	added []addedToken // added_tokens_decoder or added_tokens.json, in the order of ids
	// override has the tokens of added_tokens_decoder replace those of tokenizer.json; those of
	// added_tokens.json do not.
	override bool
	// addBOS is add_bos_token, which transformers obeys only without tokenizer.json.
	addBOS *bool
}

// special are the named tokens that every tokenizer can have, in the order in which they get new ids.
var special = []string{
	"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
}

// readSettings reads tokenizer_config.json. Without added_tokens_decoder it also reads
// special_tokens_map.json, whose tokens come before those of tokenizer_config.json, and
// added_tokens.json.
func readSettings(dir fs.FS) (s settings, err error) {
	config, err := readObject(dir, "tokenizer_config.json")
	if err != nil {
		return s, err
	}
	_, decoder := config["added_tokens_decoder"]
	var ids map[string]int32
	if !decoder {
		older, err := readObject(dir, "special_tokens_map.json")
		if err != nil {
			return s, err
		}
		if config == nil {
			config = map[string]json.RawMessage{}
		}
		maps.Copy(config, older)
		if data, err := read(dir, "added_tokens.json"); err == nil {
			if err := files.ParseJSON(data, &ids); err != nil {
				return s, fmt.Errorf("added_tokens.json: %w", err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
	json.Unmarshal(config["tokenizer_class"], &s.class)
	s.class = strings.TrimSuffix(s.class, "Fast")
	json.Unmarshal(config["add_bos_token"], &s.addBOS)
	s.readNamed(config)
	if s.override = decoder; decoder {
		return s, s.readDecoder(config["added_tokens_decoder"])
	}
	s.readAdded(ids)
	return s, nil
}

// readObject returns the values of a file's JSON object by key, nil without the file.
func readObject(dir fs.FS, name string) (o map[string]json.RawMessage, err error) {
	data, err := read(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := files.ParseJSON(data, &o); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return o, nil
}

// readNamed reads the special tokens with and without names. A value of another form is no token.
func (s *settings) readNamed(config map[string]json.RawMessage) {
	s.named = map[string]addedToken{}
	keep := func(key string, raw json.RawMessage) {
		if t, err := parseAdded(raw, true); err == nil && t.Content != "" {
			t.Special = true
			s.named[key] = t
		}
	}
	for key, raw := range config {
		if strings.HasSuffix(key, "_token") {
			keep(key, raw)
		}
	}
	for _, key := range []string{"extra_special_tokens", "additional_special_tokens"} {
		var byName map[string]json.RawMessage
		if json.Unmarshal(config[key], &byName) == nil {
			for name, raw := range byName {
				keep(name, raw)
			}
		}
		var list []json.RawMessage
		if json.Unmarshal(config[key], &list) == nil && s.extra == nil {
			for _, raw := range list {
				if t, err := parseAdded(raw, true); err == nil && t.Content != "" {
					t.Special = true
					s.extra = append(s.extra, t)
				}
			}
		}
	}
}

// readDecoder reads added_tokens_decoder: tokens by id.
func (s *settings) readDecoder(raw json.RawMessage) error {
	var byID map[string]json.RawMessage
	if err := json.Unmarshal(raw, &byID); err != nil {
		return fmt.Errorf("tokenizer_config.json: added_tokens_decoder: %w", err)
	}
	for id, raw := range byID {
		n, err := strconv.ParseInt(id, 10, 32)
		var t addedToken
		if err == nil {
			t, err = parseAdded(raw, false)
		}
		if err != nil {
			return fmt.Errorf("tokenizer_config.json: added_tokens_decoder: token %.40q: %w", id, err)
		}
		t.ID = int32(n)
		t.Special = t.Special || s.hasName(t.Content)
		s.added = append(s.added, t)
	}
	slices.SortFunc(s.added, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

// readAdded takes the tokens of added_tokens.json.
func (s *settings) readAdded(ids map[string]int32) {
	for text, id := range ids {
		t := addedToken{ID: id, Content: text, Special: s.isSpecial(text)}
		t.Normalized = !t.Special // a token with a name of the model's own is both
		t.Special = t.Special || s.hasName(text)
		s.added = append(s.added, t)
	}
	slices.SortFunc(s.added, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
}

// isSpecial reports whether a text is a special token without a name or with one of special.
func (s *settings) isSpecial(text string) bool {
	for _, key := range special {
		if t, ok := s.named[key]; ok && t.Content == text {
			return true
		}
	}
	return slices.ContainsFunc(s.extra, func(t addedToken) bool { return t.Content == text })
}

// hasName reports whether a text is a special token with a name.
func (s *settings) hasName(text string) bool {
	for _, t := range s.named {
		if t.Content == text {
			return true
		}
	}
	return false
}

// all returns the tokens in the order in which transformers adds them.
func (s *settings) all() []addedToken {
	tokens := slices.Clone(s.added)
	known := func(t addedToken) bool {
		return slices.ContainsFunc(tokens, func(o addedToken) bool { return o.Content == t.Content })
	}
	keys := slices.Clone(special)
	for _, key := range slices.Sorted(maps.Keys(s.named)) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if t, ok := s.named[key]; ok && !known(t) {
			tokens = append(tokens, t)
		}
	}
	for _, t := range s.extra {
		if !known(t) {
			tokens = append(tokens, t)
		}
	}
	return tokens
}

// merge adds the tokens of s to those of tokenizer.json. A token that both have gets the properties
// of added_tokens_decoder. vocab has the ids of the model's pieces. changed reports whether a token
// changed or is new, differs whether a text of the model's vocabulary gets other ids by that.
func (s *settings) merge(file []addedToken, vocab map[string]int32) (
	tokens []addedToken, changed, differs bool) {
	tokens = slices.Clone(file)
	next := int32(len(vocab)) // as the library numbers tokens that are not pieces of the model
	index := make(map[string]int, len(file))
	for i, t := range file {
		next, index[t.Content] = max(next, t.ID+1), i
	}
	for i, t := range s.all() {
		if t.Content == "" {
			continue
		}
		at, has := index[t.Content]
		if !has {
			index[t.Content] = len(tokens)
		}
		id, piece := vocab[t.Content]
		switch {
		case !has && !piece:
			t.ID, next = next, next+1
			tokens, changed = append(tokens, t), true
		case !has:
			t.ID = id
			tokens, changed, differs = append(tokens, t), true, true
		case s.override && i < len(s.added):
			old := tokens[at]
			t.ID = old.ID
			if t == old {
				continue
			}
			tokens[at], changed = t, true
			old.Special = t.Special
			differs = differs || t != old
		}
	}
	return tokens, changed, differs
}
