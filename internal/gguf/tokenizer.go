package gguf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unicode/utf8"
)

// This file makes tokenizer.json of a GGUF file's tokens. tokenizer.ggml.model is gpt2 for byte-level BPE,
// whose split of texts has a name (tokenizer.ggml.pre), and llama for SentencePiece's BPE, whose merges
// follow from the scores of the pieces.

// The types of tokens, by the numbers of llama.cpp.
const (
	tokenNormal = iota + 1
	tokenUnknown
	tokenControl
	tokenUser // defined by the user: found in a text before the model splits it
	tokenUnused
	tokenByte
)

// vocabulary is what a file says about its tokenizer.
type vocabulary struct {
	kind, pre string
	tokens    []string
	types     []int64
	scores    []float32
	merges    []string
	addBOS    bool
	prefix    bool // a space is put before a text
	named     map[string]string
}

// beside are the files of a tokenizer that a directory of a checkpoint can have.
var beside = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
	"added_tokens.json", "chat_template.jinja"}

// tokenizer adds the files of the tokenizer to files: made of what is in the file or, if it has none that
// ptune reads, those of dir.
func (m *metadata) tokenizer(files memory, dir fs.FS) error {
	v, err := m.vocabulary()
	if err != nil {
		if _, missing := fs.Stat(dir, "tokenizer.json"); missing != nil {
			return fmt.Errorf("%w; a tokenizer.json beside the file would be used instead", err)
		}
		for _, name := range beside {
			if _, missing := fs.Stat(dir, name); missing == nil {
				files[name] = func() ([]byte, error) { return fs.ReadFile(dir, name) }
			}
		}
	} else {
		files["tokenizer.json"] = func() ([]byte, error) { return v.file() }
	}
	if _, ok := files["tokenizer_config.json"]; ok {
		return nil
	}
	config := map[string]any{}
	if v != nil {
		for name, text := range v.named {
			config[name] = text
		}
	}
	if template, ok := m.String("tokenizer.chat_template"); ok {
		config["chat_template"] = template
	}
	settings, err := json.MarshalIndent(config, "", "  ")
	files["tokenizer_config.json"] = func() ([]byte, error) { return settings, nil }
	return err
}

// vocabulary reads and checks the tokenizer. The error says what ptune does not read.
func (m *metadata) vocabulary() (*vocabulary, error) {
	const at = "tokenizer.ggml."
	v := &vocabulary{named: map[string]string{}}
	v.kind, _ = m.String(at + "model")
	v.pre, _ = m.String(at + "pre")
	var ok bool
	if v.tokens, ok = m.Strings(at + "tokens"); !ok || len(v.tokens) == 0 {
		return nil, errors.New("it has no tokens (tokenizer.ggml.tokens)")
	}
	for id, text := range v.tokens {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("token %d is not valid UTF-8: %.40q", id, text)
		}
	}
	if v.types, ok = m.Ints(at + "token_type"); !ok {
		v.types = make([]int64, len(v.tokens))
	}
	v.scores, _ = m.Floats(at + "scores")
	v.merges, _ = m.Strings(at + "merges")
	if len(v.types) != len(v.tokens) {
		return nil, fmt.Errorf("it has %d tokens, but types of %d", len(v.tokens), len(v.types))
	}
	switch v.kind {
	case "gpt2":
		s, known := splits[v.pre]
		if !known {
			return nil, fmt.Errorf("ptune does not know how its tokenizer splits texts "+
				"(tokenizer.ggml.pre is %q)", v.pre)
		}
		v.addBOS = s.addBOS
	case "llama":
		if len(v.scores) != len(v.tokens) {
			return nil, fmt.Errorf("it has %d tokens, but scores of %d", len(v.tokens), len(v.scores))
		}
		v.addBOS, v.prefix = true, true
	default:
		return nil, fmt.Errorf("its tokenizer is of the kind %q; ptune reads gpt2 and llama", v.kind)
	}
	if b, ok := m.Bool(at + "add_bos_token"); ok {
		v.addBOS = b
	}
	if b, ok := m.Bool(at + "add_space_prefix"); ok && v.kind == "llama" {
		v.prefix = b
	}
	for name, key := range map[string]string{"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown",
		"pad_token": "padding", "mask_token": "mask"} {
		id, ok := m.Int(at + key + "_token_id")
		if !ok {
			continue
		}
		if id < 0 || id >= int64(len(v.tokens)) {
			return nil, fmt.Errorf("%s%s_token_id is %d, but there are %d tokens", at, key, id, len(v.tokens))
		}
		v.named[name] = v.tokens[id]
		if t := v.types[id]; t != tokenUnknown {
			v.types[id] = tokenControl
		}
	}
	if v.addBOS && v.named["bos_token"] == "" {
		v.addBOS = false
	}
	return v, nil
}

// split is how a kind of byte-level BPE splits texts before it merges.
type split struct {
	pattern      string // of Split; empty: ByteLevel's own
	digits       bool   // each digit is a piece
	ignoreMerges bool   // a piece that is in the vocabulary is not split
	addBOS       bool   // without tokenizer.ggml.add_bos_token
	nfc          bool   // texts are normalised
}

// The patterns of Llama 3, Qwen 2, GPT-4o and Mistral's Tekken, as their tokenizer.json have them.
const (
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|` +
		` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|` +
		` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenPattern = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|` +
		` ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	gpt4oPattern = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*` +
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|` +
		` ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splits are the splits by tokenizer.ggml.pre (llama-vocab.cpp of llama.cpp).
var splits = map[string]split{
	"gpt-2": {}, "gpt2": {}, "phi-2": {}, "mpt": {}, "olmo": {}, "exaone4": {}, "mellum": {},
	"smollm": {digits: true}, "starcoder": {digits: true}, "refact": {digits: true},
	"command-r": {digits: true}, "codeshell": {digits: true},
	"llama-bpe": {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"llama3":    {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"llama-v3":  {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"dbrx":      {pattern: llama3Pattern}, "smaug-bpe": {pattern: llama3Pattern},
	"qwen2":            {pattern: qwen2Pattern, nfc: true},
	"deepseek-r1-qwen": {pattern: qwen2Pattern, nfc: true},
	"stablelm2":        {pattern: qwen2Pattern, nfc: true},
	"tekken":           {pattern: tekkenPattern, ignoreMerges: true, addBOS: true},
	"gpt-4o":           {pattern: gpt4oPattern},
}

// object is a JSON object.
type object = map[string]any

// file returns tokenizer.json.
func (v *vocabulary) file() ([]byte, error) {
	vocab := make(map[string]int, len(v.tokens))
	for id, text := range v.tokens {
		if other, twice := vocab[text]; twice {
			return nil, fmt.Errorf("tokenizer.ggml.tokens: tokens %d and %d are both %.40q", other, id, text)
		}
		vocab[text] = id
	}
	model := object{"type": "BPE", "vocab": vocab, "dropout": nil, "unk_token": nil,
		"continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false,
		"byte_fallback": false, "ignore_merges": false}
	file := object{"version": "1.0", "truncation": nil, "padding": nil, "model": model,
		"added_tokens": v.added(), "normalizer": nil, "pre_tokenizer": nil, "post_processor": nil}
	if v.kind == "gpt2" {
		s := splits[v.pre]
		model["merges"], model["ignore_merges"] = slices.Concat([]string{}, v.merges), s.ignoreMerges
		byteLevel := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
			"use_regex": s.pattern == ""}
		file["pre_tokenizer"], file["decoder"] = byteLevel, byteLevel
		switch {
		case s.pattern != "":
			file["pre_tokenizer"] = sequence("pretokenizers", object{"type": "Split",
				"pattern": object{"Regex": s.pattern}, "behavior": "Isolated", "invert": false}, byteLevel)
		case s.digits:
			file["pre_tokenizer"] = sequence("pretokenizers",
				object{"type": "Digits", "individual_digits": true}, byteLevel)
		}
		if s.nfc {
			file["normalizer"] = object{"type": "NFC"}
		}
	} else {
		v.sentencePiece(file, model, vocab)
	}
	if bos := v.named["bos_token"]; v.addBOS {
		file["post_processor"] = object{"type": "TemplateProcessing",
			"single": []any{special(bos, 0), text("A", 0)},
			"pair":   []any{special(bos, 0), text("A", 0), special(bos, 1), text("B", 1)},
			"special_tokens": object{
				bos: object{"id": bos, "ids": []int{vocab[bos]}, "tokens": []string{bos}}}}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(file)
	return out.Bytes(), err
}

// sequence is a part of a tokenizer.json that is several parts after each other.
func sequence(key string, parts ...object) object { return object{"type": "Sequence", key: parts} }

func special(text string, kind int) object {
	return object{"SpecialToken": object{"id": text, "type_id": kind}}
}

func text(name string, kind int) object {
	return object{"Sequence": object{"id": name, "type_id": kind}}
}

// added returns the tokens that are found in a text before the model splits it.
func (v *vocabulary) added() []object {
	added := []object{}
	for id, text := range v.tokens {
		switch t := v.types[id]; {
		case text == "":
		case t == tokenControl, t == tokenUnknown, t == tokenUser:
			added = append(added, object{"id": id, "content": text, "special": t != tokenUser,
				"single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
		}
	}
	return added
}

// sentencePiece adds what a tokenizer of SentencePiece has, as transformers converts it.
func (v *vocabulary) sentencePiece(file, model object, vocab map[string]int) {
	model["merges"] = v.mergesByScore(vocab)
	model["fuse_unk"], model["byte_fallback"] = true, true
	if unknown := slices.Index(v.types, tokenUnknown); unknown >= 0 {
		model["unk_token"] = v.tokens[unknown]
	}
	replace := func(from, to string) object {
		return object{"type": "Replace", "pattern": object{"String": from}, "content": to}
	}
	file["normalizer"] = replace(" ", "▁")
	decoders := []object{replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}}
	if v.prefix {
		file["normalizer"] = sequence("normalizers", object{"type": "Prepend", "prepend": "▁"},
			replace(" ", "▁"))
		decoders = append(decoders, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	file["decoder"] = sequence("decoders", decoders...)
}

// mergesByScore returns the merges that make each piece of two others, those of the pieces with the
// highest scores first, as transformers' generate_merges does.
func (v *vocabulary) mergesByScore(vocab map[string]int) [][2]string {
	type merge struct {
		parts       [2]string
		score       float32
		left, right int // characters of the parts
		ids         [2]int
	}
	var all []merge
	for id, piece := range v.tokens {
		if t := v.types[id]; t == tokenControl || t == tokenUnknown || t == tokenByte {
			continue
		}
		first, chars, length := len(all), 0, utf8.RuneCountInString(piece)
		for i := range piece {
			if i > 0 {
				left, ok := vocab[piece[:i]]
				right, both := vocab[piece[i:]]
				if ok && both {
					all = append(all, merge{[2]string{piece[:i], piece[i:]}, v.scores[id], chars,
						length - chars, [2]int{left, right}})
				}
			}
			chars++
		}
		slices.SortFunc(all[first:], func(a, b merge) int { return slices.Compare(a.ids[:], b.ids[:]) })
	}
	slices.SortStableFunc(all, func(a, b merge) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([][2]string, len(all))
	for i, m := range all {
		merges[i] = m.parts
	}
	return merges
}
