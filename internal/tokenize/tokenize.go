// Package tokenize turns text into token ids and back, with the tokenizer.json of a model. It is
// the only importer of daulet/tokenizers, the Go binding of Hugging Face's tokenizers library.
package tokenize

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/daulet/tokenizers"

	"ptune/internal/files"
)

// Tokenizer is a loaded tokenizer.json.
type Tokenizer struct {
	// Hash is the first half of the SHA-256 of tokenizer.json, in hexadecimal. If other files change the
	// ids of texts, it is that of tokenizer.json and the changes.
	Hash    string
	BOS     []int32           // special tokens before every input: usually none or one
	Special map[string]string // the texts of special tokens by name: bos_token, eos_token, …
	// Vocab is the number of embeddings of the model. A text with a token whose id is not below it is
	// an error. 0: any id is allowed.
	Vocab int
	// Prepends tells that the tokenizer puts a space before a text, so that the ids of a text that
	// continues another differ from those of the text alone.
	Prepends bool

	lib     *tokenizers.Tokenizer
	unknown int32            // the id for what the model has no piece for; -1: none
	differs string           // how the other files change the ids of texts, for the hash
	special map[int32]bool   // added tokens that are special
	pieces  map[int32]string // by id
	ids     map[string]int32 // by piece
}

// Library is the version of the linked tokenizers library.
const Library = "v1.22.1"

// Limits of a tokenizer.json, above those of any real one.
const (
	maxFile  = 64 << 20 // bytes
	maxVocab = 1 << 21
	maxAdded = 100_000 // added tokens
	maxDepth = 64      // nesting
)

// Known reports whether the library is known to load the tokenizer.json with a SHA-256. After an
// error the tokenizer is not opened.
type Known func(sum string) (bool, error)

// Open loads the tokenizer of a model directory. The library aborts the process on some broken
// files, so the file is checked first. A file that known reports is checked less, while the library
// loads it. known may be nil.
func Open(dir string, known Known) (*Tokenizer, error) { return OpenFS(dir, os.DirFS(dir), known) }

// OpenFS loads the tokenizer of a model in a file system. name is for errors.
func OpenFS(name string, dir fs.FS, known Known) (*Tokenizer, error) {
	data, err := read(dir, "tokenizer.json")
	if err != nil {
		return nil, fmt.Errorf("read tokenizer of %q: %w", name, err)
	}
	hash := sha256.Sum256(data)
	sum, loads := hex.EncodeToString(hash[:]), false
	if known != nil {
		if loads, err = known(sum); err != nil {
			return nil, err
		}
	}
	beside, err := readSettings(dir)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer of %q: %w", name, err)
	}
	t, err := parse(data, loads, &beside)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer of %q: tokenizer.json: %w", name, err)
	}
	t.findBOS(&beside)
	if t.differs != "" {
		hash = sha256.Sum256(slices.Concat(data, []byte(t.differs)))
		sum = hex.EncodeToString(hash[:])
	}
	t.Hash = sum[:32]
	return t, nil
}

func read(dir fs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	if info, err := f.Stat(); err == nil {
		data.Grow(int(min(info.Size(), maxFile)) + bytes.MinRead)
	}
	n, err := data.ReadFrom(io.LimitReader(f, maxFile+1))
	if err == nil && n > maxFile {
		err = fmt.Errorf("%s is larger than %d MB", name, maxFile>>20)
	}
	return data.Bytes(), err
}

// file is the part of tokenizer.json that is checked before the library loads it.
type file struct {
	AddedTokens []addedToken `json:"added_tokens"`
	Model       struct {
		Type   string          `json:"type"`
		Prefix *string         `json:"continuing_subword_prefix"`
		Vocab  json.RawMessage `json:"vocab"`
		Merges json.RawMessage `json:"merges"`
		Unk    *string         `json:"unk_token"`
		UnkID  *int32          `json:"unk_id"` // of Unigram
	} `json:"model"`
	Normalizer   json.RawMessage `json:"normalizer"`
	PreTokenizer json.RawMessage `json:"pre_tokenizer"`

	Truncation any `json:"truncation"`
	Padding    any `json:"padding"`
}

// parse checks a file and loads it with the library; if it is known to load, at the same time. beside may
// be nil.
func parse(data []byte, known bool, beside *settings) (*Tokenizer, error) {
	var lib *tokenizers.Tokenizer
	var loadErr error
	var loading sync.WaitGroup
	load := func(data []byte) { lib, loadErr = tokenizers.FromBytes(data) }
	if known {
		loading.Go(func() { load(data) })
	}
	t, changed, err := check(data, known, beside)
	loading.Wait()
	if lib != nil && (err != nil || changed != nil) {
		lib.Close()
	}
	switch {
	case err != nil:
		return nil, err
	case changed != nil:
		load(changed)
	case !known:
		load(data)
	}
	if loadErr != nil {
		return nil, loadErr
	}
	t.lib = lib
	return t, nil
}

// check refuses files that would make the library abort the process. changed is the file to load
// instead, nil if it is the same: without truncation and padding, because only the task file decides
// what is cut, and with the added tokens of the other files.
func check(data []byte, known bool, beside *settings) (t *Tokenizer, changed []byte, err error) {
	var f file
	if err := files.Wrong(data); err != nil {
		return nil, nil, err
	}
	if !utf8.Valid(data) {
		return nil, nil, errors.New("it is not valid UTF-8")
	}
	if err := nested(data); err != nil {
		return nil, nil, err
	}
	if err := files.ParseJSON(data, &f); err != nil {
		return nil, nil, err
	}
	t = &Tokenizer{
		special:  map[int32]bool{},
		Prepends: prepends(f.Normalizer) || prepends(f.PreTokenizer),
	}
	switch f.Model.Type {
	case "", "BPE", "Unigram", "WordPiece", "WordLevel": // old files have no type for BPE
	default:
		return nil, nil, fmt.Errorf("unknown model type %q", f.Model.Type)
	}
	if f.Model.Type == "BPE" && f.Model.Prefix != nil && *f.Model.Prefix != "" {
		return nil, nil, fmt.Errorf("a BPE model with continuing_subword_prefix %q is not supported",
			*f.Model.Prefix)
	}
	added, differs, err := t.vocabulary(&f, beside)
	if err != nil {
		return nil, nil, err
	}
	t.unknown = -1
	if f.Model.UnkID != nil {
		t.unknown = *f.Model.UnkID
	} else if f.Model.Unk != nil {
		if id, ok := t.ids[*f.Model.Unk]; ok {
			t.unknown = id
		}
	}
	if !known {
		if err := t.merges(f.Model.Merges); err != nil {
			return nil, nil, err
		}
	}
	if f.Truncation == nil && f.Padding == nil && added == nil {
		return t, nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, nil, err
	}
	delete(all, "truncation")
	delete(all, "padding")
	if added != nil {
		if all["added_tokens"], err = encode(added); err != nil {
			return nil, nil, err
		}
		if differs {
			t.differs = string(all["added_tokens"])
		}
	}
	changed, err = encode(all)
	return t, changed, err
}

// vocabulary reads the ids and pieces of the model and of the added tokens. added are the file's added
// tokens with those of the other files, nil if they are the same; differs is that of settings.merge.
func (t *Tokenizer) vocabulary(f *file, beside *settings) (added []addedToken, differs bool, err error) {
	if err := t.model(f); err != nil {
		return nil, false, err
	}
	tokens := f.AddedTokens
	if beside != nil {
		var changed bool
		if tokens, changed, differs = beside.merge(f.AddedTokens, t.ids); changed {
			added = tokens
		}
		t.Special = map[string]string{}
		for name, token := range beside.named {
			t.Special[name] = token.Content
		}
	}
	if len(tokens) > maxAdded {
		return nil, false, fmt.Errorf("it has %d added tokens, want at most %d", len(tokens), maxAdded)
	}
	for _, a := range tokens {
		if a.ID < 0 || a.ID >= maxVocab {
			return nil, false, fmt.Errorf("added token %.40q has id %d, want 0 to %d",
				a.Content, a.ID, maxVocab-1)
		}
		t.pieces[a.ID], t.ids[a.Content] = a.Content, a.ID
		t.special[a.ID] = a.Special
	}
	return added, differs, nil
}

// model reads the ids and pieces of the model.
func (t *Tokenizer) model(f *file) error {
	t.ids = map[string]int32{}
	if len(f.Model.Vocab) > 0 && f.Model.Vocab[0] == '[' { // Unigram: [piece, score], ordered by id
		var list [][]any
		if err := json.Unmarshal(f.Model.Vocab, &list); err != nil {
			return fmt.Errorf("model.vocab: %w", err)
		}
		for i, p := range list {
			s, ok := "", false
			if len(p) == 2 {
				s, ok = p[0].(string)
			}
			if !ok {
				return fmt.Errorf("model.vocab: entry %d is not [piece, score]", i)
			}
			t.ids[s] = int32(i)
		}
	} else if err := json.Unmarshal(f.Model.Vocab, &t.ids); err != nil {
		return fmt.Errorf("model.vocab: %w", err)
	}
	if len(t.ids) == 0 {
		return errors.New("model.vocab is empty")
	}
	t.pieces = make(map[int32]string, len(t.ids))
	for p, id := range t.ids {
		if other, ok := t.pieces[id]; ok || id < 0 || id >= maxVocab {
			return fmt.Errorf(
				"model.vocab: %.40q has id %d, want a unique one below %d (%.40q has it too)",
				p, id, maxVocab, other)
		}
		t.pieces[id] = p
	}
	return nil
}

// nested refuses a file whose values are nested more than maxDepth deep.
func nested(data []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return fmt.Errorf("its values are nested more than %d deep", maxDepth)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

// merges refuses BPE merges with a piece or a result that is not in the vocabulary: some versions
// of the library abort the process on them.
func (t *Tokenizer) merges(raw json.RawMessage) error {
	var lines []string // "a b" in older files
	var pairs [][2]string
	head := strings.TrimPrefix(string(raw[:min(len(raw), 64)]), "[")
	head = strings.TrimLeft(head, " \t\r\n")
	var err error
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return nil
	case strings.HasPrefix(head, `"`):
		err = json.Unmarshal(raw, &lines)
	default:
		err = json.Unmarshal(raw, &pairs)
	}
	if err != nil {
		return fmt.Errorf("model.merges: %w", err)
	}
	for i, l := range lines {
		a, b, ok := strings.Cut(l, " ")
		if !ok {
			return fmt.Errorf("model.merges: entry %d is not a pair", i)
		}
		pairs = append(pairs, [2]string{a, b})
	}
	var whole []byte
	for i, p := range pairs {
		whole = append(append(whole[:0], p[0]...), p[1]...)
		_, left := t.ids[p[0]]
		_, right := t.ids[p[1]]
		if _, both := t.ids[string(whole)]; !left || !right || !both {
			return fmt.Errorf("model.merges: entry %d, %.40q and %.40q to %.40q, has a piece "+
				"that is not in the vocabulary", i, p[0], p[1], whole)
		}
	}
	return nil
}

// findBOS sets BOS: what tokenizer.json puts before a text. As in transformers 5.23, add_bos_token of
// tokenizer_config.json does not count beside a tokenizer.json, and GPT-NeoX has no BOS.
func (t *Tokenizer) findBOS(beside *settings) {
	plain, full := t.call("a", false), t.call("a", true)
	for k := 0; k+len(plain) <= len(full); k++ {
		if slices.Equal(full[k:k+len(plain)], plain) {
			t.BOS = full[:k]
			break
		}
	}
	if beside.class == "GPTNeoXTokenizer" && t.BOS != nil {
		t.BOS, t.differs = nil, t.differs+"no BOS"
	}
	// Earlier versions of ptune obeyed add_bos_token. Where that made a difference, their prompts must not
	// fit any more.
	bos, known := t.ids[t.Special["bos_token"]]
	if add := beside.addBOS; add != nil && known && *add == (len(t.BOS) == 0) {
		if *add || t.BOS[0] == bos && len(t.BOS) == 1 {
			t.differs += "add_bos_token"
		}
	}
}

// ID returns the id of a token by its text.
func (t *Tokenizer) ID(text string) (id int32, ok bool) {
	id, ok = t.ids[text]
	return id, ok
}

// Encode returns the ids of a text without special tokens. Bytes that are not valid UTF-8 are an error,
// because the library would replace them, and so is a NUL byte, because it would cut the text there.
func (t *Tokenizer) Encode(text string) ([]int32, error) {
	if text == "" {
		return nil, nil
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf(
			"the text has a NUL byte at offset %d, which the tokenizer does not support",
			i)
	}
	for i, c := range text { // a valid text may contain U+FFFD itself
		if c == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") {
			return nil, fmt.Errorf("the text is not valid UTF-8: it has the byte 0x%02x at offset %d", text[i], i)
		}
	}
	ids := t.call(text, false)
	if len(ids) == 0 && strings.TrimSpace(text) != "" {
		return nil, fmt.Errorf("the tokenizer has no token for %.40q", text)
	}
	return ids, t.CheckIDs(ids)
}

// CheckIDs returns an error if the model has no embedding for an id. Some tokenizers have added tokens
// beyond the vocabulary of their model, for example for padding.
func (t *Tokenizer) CheckIDs(ids []int32) error {
	for _, id := range ids {
		if t.Vocab > 0 && int(id) >= t.Vocab {
			return fmt.Errorf("the tokenizer gives %.40q the id %d, but the model's vocabulary has "+
				"%d tokens (0 to %d)", t.pieces[id], id, t.Vocab, t.Vocab-1)
		}
	}
	return nil
}

// EncodeInput returns the ids of a text with BOS before it. It does not add BOS to a text that
// begins with it, as texts of chat templates do.
func (t *Tokenizer) EncodeInput(text string) ([]int32, error) {
	ids, err := t.Encode(text)
	if n := len(t.BOS); err != nil || len(ids) >= n && slices.Equal(ids[:n], t.BOS) {
		return ids, err
	}
	return append(slices.Clone(t.BOS), ids...), t.CheckIDs(t.BOS)
}

// call returns the library's ids; special: with the special tokens around a text.
func (t *Tokenizer) call(text string, special bool) []int32 {
	got, _ := t.lib.Encode(text, special)
	ids := make([]int32, len(got))
	for i, id := range got {
		ids[i] = int32(id)
	}
	return ids
}

// Piece returns a token as the vocabulary spells it, empty if there is none with that id.
func (t *Tokenizer) Piece(id int32) string { return t.pieces[id] }

// Ordinary reports whether a token is text: in the vocabulary, not special, and not a byte like
// <0x0A>.
func (t *Tokenizer) Ordinary(id int32) bool {
	p, ok := t.pieces[id]
	return ok && !t.special[id] && !isByte(p)
}

// Close frees the tokenizer.
func (t *Tokenizer) Close() error { return t.lib.Close() }
