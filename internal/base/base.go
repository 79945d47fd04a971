// Package base opens a base model as a whole: weights, tokenizer, chat template and the threads that
// compute. It finds the model's directory and checks that prompts fit. It knows nothing of tasks.
package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"ptune/internal/chat"
	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/gguf"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/tokenize"
)

// Base is a loaded base model with its tokenizer and the threads that compute.
type Base struct {
	*model.Model
	Tokenizer *tokenize.Tokenizer // nil after CloseTokenizer
	Pool      *kernels.Pool

	files        fs.FS
	special      chat.Tokens // the tokenizer's special tokens by name
	chatOnce     sync.Once   // reads the two fields below
	chatTemplate *chat.Template
	chatErr      error
}

// Options are how a base is opened and computes.
type Options struct {
	Threads int           // 0: one for each CPU
	Kernels string        // the kernel set; empty: the fastest of this CPU
	Compute kernels.DType // F32, or BF16 to round the inputs of products to it
	Copy    bool          // read the files into memory instead of mapping them
	Trusted bool          // the tokenizer is known to load: no child process tries it first
}

// ErrKernels matches Open's error if this CPU does not have the kernels asked for.
var ErrKernels = errors.New("kernels are not available")

// kernelsError is an error that matches ErrKernels.
type kernelsError struct{ error }

func (kernelsError) Is(target error) bool { return target == ErrKernels }

// Open loads the model of a directory or of the Hugging Face cache, or the embedded demo.
func Open(path string, o Options) (*Base, error) {
	dir, err := Dir(path)
	if err != nil {
		return nil, err
	}
	pool, err := kernels.New(kernels.Options{
		Threads: o.Threads, Kernels: o.Kernels, Compute: o.Compute,
	})
	if err != nil {
		return nil, failure.Usage(kernelsError{err})
	}
	b := &Base{Pool: pool, files: os.DirFS(dir)}
	if path == demo.Name {
		err = b.loadDemo()
	} else {
		dir, err = b.load(dir, o)
		if err == nil && dir != path {
			b.Name = filepath.Base(strings.TrimPrefix(path, hubPrefix))
		}
	}
	if err != nil {
		b.Close()
		return nil, explain(err, path, dir)
	}
	return b, nil
}

// explain marks an error of opening the model at dir as a mistake of its files, unless the system
// refused to read them. path is the model as it was given.
func explain(err error, path, dir string) error {
	missing := errors.Is(err, fs.ErrNotExist)
	if errno := syscall.Errno(0); errors.As(err, &errno) && !missing {
		return err
	}
	if err = failure.Usage(err); !missing {
		return err
	}
	if link, target := brokenLink(dir); link != "" {
		err = failure.Usage(fmt.Errorf("read model %q: %s is a link to %s, which is not there", dir, link, target))
		if onHub(path) {
			return failure.Hint(err, "ptune pull %s downloads it again", strings.TrimPrefix(path, hubPrefix))
		}
		return err
	}
	return failure.Hint(err, "a model is a directory with config.json, "+
		"model.safetensors and tokenizer.json, a .gguf file, or %s", demo.Name)
}

// brokenLink returns the first file of a model's directory that is a link to nothing, and where it points to.
func brokenLink(dir string) (link, target string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(path); e.Type()&fs.ModeSymlink != 0 && errors.Is(err, fs.ErrNotExist) {
			target, _ = os.Readlink(path)
			return e.Name(), target
		}
	}
	return "", ""
}

// trust reports every tokenizer as known to load.
func trust(string) (bool, error) { return true, nil }

func (b *Base) loadDemo() (err error) {
	b.files = demo.Base()
	if b.Model, err = model.LoadFS(demo.Name, b.files, b.Pool); err == nil {
		b.Tokenizer, err = tokenize.OpenFS(demo.Name, b.files, trust)
	}
	if err == nil {
		err = b.match()
	}
	return err
}

// load reads weights and tokenizer at the same time: each takes about half of the start-up time. It
// returns dir, or the GGUF file in it.
func (b *Base) load(dir string, o Options) (string, error) {
	file, err := gguf.Find(dir)
	if err != nil {
		return dir, err
	}
	load := func() (*model.Model, error) {
		if o.Copy {
			return model.LoadCopy(dir, b.Pool)
		}
		return model.Load(dir, b.Pool)
	}
	if file != "" {
		dir = file
		c, err := gguf.Open(file, o.Copy)
		if err != nil {
			return dir, err
		}
		b.files = c.Files
		load = func() (*model.Model, error) { return model.LoadFrom(c.Name, c.Files, c.Weights, b.Pool) }
	}
	known := trust
	if !o.Trusted {
		known = func(sum string) (bool, error) { return probeTokenizer(dir, sum) }
	}
	var tokErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Tokenizer, tokErr = tokenize.OpenFS(dir, b.files, known)
	}()
	b.Model, err = load()
	if <-done; err == nil {
		err = tokErr
	}
	if err == nil {
		err = b.match()
	}
	return dir, err
}

// match has the model and the tokenizer agree. It limits the ids of texts to the model's vocabulary. BOS is
// before every text, so its id must be in the vocabulary. If neither config.json nor
// generation_config.json names an end token, it is the tokenizer's.
func (b *Base) match() error {
	b.special = b.Tokenizer.Special
	b.Tokenizer.Vocab = b.Vocab
	if id, ok := b.Tokenizer.ID(b.special["eos_token"]); ok && len(b.EOS) == 0 {
		b.EOS = []int32{id}
	}
	if err := b.Tokenizer.CheckIDs(b.Tokenizer.BOS); err != nil {
		return fmt.Errorf("read tokenizer of %q: the token that begins a text (BOS): %w", b.Name, err)
	}
	return nil
}

// CheckWeights returns a usage error that names the first tensor with a value that is NaN or infinite.
func (b *Base) CheckWeights() error { return failure.Usage(b.Model.CheckWeights()) }

// CloseTokenizer frees the tokenizer, about 40 MB for a vocabulary of 50,000. Training does not need
// it once the rows are read.
func (b *Base) CloseTokenizer() {
	if b.Tokenizer != nil {
		b.Tokenizer.Close()
		b.Tokenizer = nil
	}
}

// Close frees the base and ends its threads.
func (b *Base) Close() {
	b.CloseTokenizer()
	if b.Model != nil {
		b.Model.Close()
	}
	b.Pool.Close()
}

// Chat returns the base's chat template. It is read once.
func (b *Base) Chat() (*chat.Template, error) {
	b.chatOnce.Do(func() {
		b.chatTemplate, b.chatErr = chat.Open(b.Name, b.files, b.special)
		if errors.Is(b.chatErr, chat.ErrNone) {
			b.chatErr = failure.Hint(b.chatErr, "only chat models have a chat template; "+
				"data.input and data.target work without one")
		}
	})
	return b.chatTemplate, b.chatErr
}

// ChatOf returns the base's chat template if its hash is sum, as a prompt's file keeps it.
func (b *Base) ChatOf(sum string) (*chat.Template, error) {
	t, err := b.Chat()
	if err == nil && t.Sum() != sum {
		return nil, fmt.Errorf("the chat template of %q (%.8s) is not the one "+
			"the prompt was trained with (%.8s)", b.Name, t.Sum(), sum)
	}
	return t, err
}

// EndToken returns the id of the token that ends a target.
func (b *Base) EndToken() (int32, error) {
	if len(b.EOS) == 0 {
		return 0, fmt.Errorf("neither config.json nor generation_config.json of %s has an eos_token_id, and "+
			"tokenizer_config.json has no eos_token: no token can end a target", b.Name)
	}
	if id := b.EOS[0]; id < 0 || int(id) >= b.Vocab {
		return 0, fmt.Errorf("config.json of %s: eos_token_id is %d, but the vocabulary has %d tokens (0 to %d)",
			b.Name, id, b.Vocab, b.Vocab-1)
	}
	return b.EOS[0], nil
}
