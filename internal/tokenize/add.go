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

// Extended is a tokenizer.json with tokens more than another.
type Extended struct {
	First  int32  // the new tokens' ids are First, First+1, …
	Prefix string // the text to write before an input: the new tokens, then what the tokenizer puts before every text

	json []byte
	from string
}

// glue is what may have to stand between the new tokens and a text for the text to become the ids it has alone: a tokenizer of the
// SentencePiece kind puts a space before a text, but not before one that stands behind a special token.
var glue = []string{"", " "}

// samples are texts that must become the same ids behind the new tokens as alone.
var samples = []string{"Hello world", "the room was small, but", "3.5 of 10", "Über\nuns", "(so it is)"}

// AddTokens is the tokenizer of a model directory with special tokens of these names added.
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
			return fail(fmt.Errorf("it has %q already", name))
		}
		token, err := encode(map[string]any{"id": x.First + int32(i), "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
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
	now, err := parse(x.json, false)
	if err != nil {
		return fail(err)
	}
	defer now.Close()
	for _, g := range glue {
		if x.Prefix = strings.Join(names, "") + old.begins() + g; x.reads(old, now, len(names)) {
			return x, nil
		}
	}
	return fail(errors.New("a text becomes other ids behind special tokens than alone, so it cannot be served as text"))
}

// begins is the text of what stands before every input.
func (t *Tokenizer) begins() string {
	var b strings.Builder
	for _, id := range t.BOS {
		b.WriteString(t.pieces[id])
	}
	return b.String()
}

// reads tells whether the samples behind the prefix become the new ids, what stands before every text, and the samples' own ids.
func (x *Extended) reads(old, now *Tokenizer, n int) bool {
	for _, text := range samples {
		var want []int32
		for i := range n {
			want = append(want, x.First+int32(i))
		}
		ids, err := old.EncodeInput(text)
		if err != nil || !slices.Equal(now.call(x.Prefix+text, false), append(want, ids...)) {
			return false
		}
	}
	return true
}

// Files are the files of the tokenizer, by name.
func (x *Extended) Files() (map[string][]byte, error) {
	files := map[string][]byte{"tokenizer.json": x.json}
	for _, name := range []string{"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"} {
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

// encode is JSON that leaves <, > and & as they are.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
