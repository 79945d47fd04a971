package tokenize

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Extended is a tokenizer.json with added tokens.
type Extended struct {
	First  int32  // the ids of the new tokens are First, First+1, …
	Prefix string // text to put before an input: the new tokens, then BOS if the tokenizer adds one

	json []byte // the new tokenizer.json
	from string // directory of the old tokenizer
}

// glue are the texts to try between the new tokens and an input, so that the input keeps its ids. A
// SentencePiece tokenizer puts a space before a text, but not after a special token.
var glue = []string{"", " "}

// samples are texts that must have the same ids after the new tokens as alone.
var samples = []string{"Hello world", "the room was small, but", "3.5 of 10", "Über\nuns", "(so it is)"}

// AddTokens adds special tokens with these names to the tokenizer of a model directory. It fails if
// texts have other ids after the new tokens than alone.
func AddTokens(dir string, names []string) (*Extended, error) {
	fail := func(err error) (*Extended, error) {
		return nil, fmt.Errorf("add tokens to the tokenizer of %q: %w", dir, err)
	}
	old, err := Open(dir, nil)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	data, err := read(os.DirFS(dir), "tokenizer.json")
	if err != nil {
		return fail(err)
	}
	beside, err := readSettings(os.DirFS(dir))
	if err != nil {
		return fail(err)
	}
	if _, changed, err := check(data, true, &beside); err != nil {
		return fail(err)
	} else if changed != nil {
		data = changed
	}
	var all map[string]json.RawMessage
	var added []json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return fail(err)
	}
	if len(all["added_tokens"]) > 0 {
		if err := json.Unmarshal(all["added_tokens"], &added); err != nil {
			return fail(err)
		}
	}
	x := &Extended{from: dir}
	for id := range old.pieces {
		x.First = max(x.First, id+1)
	}
	for i, name := range names {
		if _, ok := old.ids[name]; ok {
			return fail(fmt.Errorf("it already has a token %q", name))
		}
		token, err := encode(map[string]any{
			"id": x.First + int32(i), "content": name, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		})
		if err != nil {
			return fail(err)
		}
		added = append(added, token)
	}
	if all["added_tokens"], err = encode(added); err != nil {
		return fail(err)
	}
	if x.json, err = encode(all); err != nil {
		return fail(err)
	}
	extended, err := parse(x.json, false, nil)
	if err != nil {
		return fail(err)
	}
	defer extended.Close()
	for _, g := range glue {
		x.Prefix = strings.Join(names, "") + old.bosText() + g
		if x.keepsIDs(old, extended, len(names)) {
			return x, nil
		}
	}
	return fail(errors.New("texts have other ids after special tokens than alone"))
}

// bosText returns the text of BOS.
func (t *Tokenizer) bosText() string {
	var b strings.Builder
	for _, id := range t.BOS {
		b.WriteString(t.pieces[id])
	}
	return b.String()
}

// keepsIDs reports whether each sample after the prefix has the n new ids, then the ids it had as
// an input of the old tokenizer.
func (x *Extended) keepsIDs(old, extended *Tokenizer, n int) bool {
	for _, text := range samples {
		var want []int32
		for i := range n {
			want = append(want, x.First+int32(i))
		}
		ids, err := old.EncodeInput(text)
		want = append(want, ids...)
		if err != nil || !slices.Equal(extended.call(x.Prefix+text, false), want) {
			return false
		}
	}
	return true
}

// Files returns the files of the new tokenizer by name.
func (x *Extended) Files() (map[string][]byte, error) {
	files := map[string][]byte{"tokenizer.json": x.json}
	for _, name := range []string{
		"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
		"chat_template.json",
	} {
		data, err := read(os.DirFS(x.from), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read tokenizer of %q: %w", x.from, err)
		}
		files[name] = data
	}
	return files, nil
}

// encode returns JSON without escapes for <, > and &.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
