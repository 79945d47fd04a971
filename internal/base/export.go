package base

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/gguf"
	"ptune/internal/kernels"
	"ptune/internal/tokenize"
)

// Served is a base that was written with a prompt in its vocabulary.
type Served struct {
	Dir   string
	First int           // the ids of the virtual tokens are First, First+1, …
	DType kernels.DType // of the embedding, to which the virtual tokens are rounded
}

// PrefixFile is the file in Served.Dir with the text to write before an input.
const PrefixFile = "prompt.txt"

// SaveWithPrompt writes the base of directory from to the directory to, with the virtual tokens of p as
// additional tokens of its vocabulary and a tokenizer that knows them.
func (b *Base) SaveWithPrompt(p Prompt, from, to string) (Served, error) {
	if from == demo.Name {
		err := errors.New("the embedded base is not a directory to copy")
		return Served{}, failure.Usage(failure.Hint(err,
			"its files are internal/demo/base in ptune's source; give that with --model"))
	}
	if file, err := gguf.Find(from); err != nil || file != "" {
		err = cmp.Or(err, fmt.Errorf("the base %s is a GGUF file, whose vocabulary cannot be extended", file))
		return Served{}, failure.Usage(failure.Hint(err,
			"give the checkpoint in safetensors that it was made of with --model"))
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return Served{}, failure.Usage(fmt.Errorf("%s is not empty", to))
	}
	names := make([]string, p.Rows)
	for i := range names {
		names[i] = fmt.Sprintf("<|ptune_%d|>", i)
	}
	tok, err := tokenize.AddTokens(from, names)
	if err != nil {
		return Served{}, err
	}
	files, err := tok.Files()
	if err != nil {
		return Served{}, err
	}
	files[PrefixFile] = []byte(tok.Prefix)
	dtype, err := b.SaveWithTokens(from, to, int(tok.First), p.Values, files)
	return Served{to, int(tok.First), dtype}, err
}
