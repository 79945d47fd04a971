package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ptune/internal/chat"
	"ptune/internal/demo"
	"ptune/internal/kernels"
	"ptune/internal/model"
	"ptune/internal/process"
	"ptune/internal/prompt"
	"ptune/internal/tokenize"
)

// base is a loaded model with its tokenizer and the threads it runs on.
type base struct {
	*model.Model
	tok    *tokenize.Tokenizer
	pool   *kernels.Pool
	files  fs.FS          // of the model
	talks  *chat.Template // once it has been asked for
	memory func() float64 // bytes that can be had
}

// chat is the base's chat template.
func (b *base) chat() (t *chat.Template, err error) {
	if b.talks == nil {
		b.talks, err = chat.Open(b.Name, b.files)
	}
	if errors.Is(err, chat.ErrNone) {
		err = withHint(err, "only a model that was made for conversations has one; data.input and data.target alone need none")
	}
	return b.talks, err
}

// computeOptions are the flags that say how the arithmetic is done.
type computeOptions struct {
	threads int
	compute string
	noMmap  bool
	trusted bool // the tokenizer is one that loads
}

func (o *computeOptions) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.threads, "threads", 0, "threads to compute on (0: one for each CPU)")
	cmd.Flags().BoolVar(&o.noMmap, "no-mmap", false, "read the model's files into memory rather than map them: for files that may change while they are used")
	cmd.Flags().StringVar(&o.compute, "compute", "f32", "type of the products: f32, or bf16 for speed on a CPU that has it, at about two digits")
}

// pool is the threads and the kernels that the flags and PTUNE_KERNELS ask for.
func (o computeOptions) pool() (*kernels.Pool, error) {
	k := kernels.Options{Threads: o.threads, Kernels: os.Getenv("PTUNE_KERNELS")}
	switch {
	case o.threads < 0:
		return nil, wrong{fmt.Errorf("--threads is %d, want 0 or more", o.threads)}
	case o.compute == "bf16":
		k.Compute = kernels.BF16
	case o.compute != "f32":
		return nil, wrong{fmt.Errorf("--compute is %q, want f32 or bf16", o.compute)}
	}
	pool, err := kernels.New(k)
	if err == nil {
		process.SpareProcessor(pool.Threads())
		return pool, nil
	}
	if k.Kernels != "" {
		return nil, wrong{fmt.Errorf("PTUNE_KERNELS: %w", err)}
	}
	return nil, withHint(wrong{fmt.Errorf("--compute bf16: %w", err)}, "it needs AVX-512 with BF16, or AMX; --compute f32 runs everywhere")
}

// trust takes it that a tokenizer loads.
func trust(string) (bool, error) { return true, nil }

// openBase loads the model of a directory, or the embedded one.
func openBase(path string, o computeOptions) (*base, error) {
	dir, err := modelDir(path)
	if err != nil {
		return nil, err
	}
	pool, err := o.pool()
	if err != nil {
		return nil, err
	}
	b := &base{pool: pool, files: os.DirFS(dir), memory: process.AvailableMemory}
	if path == demo.Name {
		b.files = demo.Base()
		if b.Model, err = model.LoadFS(demo.Name, demo.Base(), pool); err == nil {
			b.tok, err = tokenize.OpenFS(demo.Name, demo.Base(), trust)
		}
	} else {
		var tokErr error
		read := make(chan struct{})
		go func() { // half of the time it takes to begin
			defer close(read)
			known := trust
			if !o.trusted {
				known = func(sum string) (bool, error) { return probeTokenizer(dir, sum) }
			}
			b.tok, tokErr = tokenize.Open(dir, known)
		}()
		load := model.Load
		if o.noMmap {
			load = model.LoadCopy
		}
		if b.Model, err = load(dir, pool); err == nil && dir != path {
			b.Name = filepath.Base(strings.TrimPrefix(path, hubPrefix))
		}
		if <-read; err == nil {
			err = tokErr
		}
	}
	if err != nil {
		b.close()
		if errors.Is(err, fs.ErrNotExist) {
			err = withHint(wrong{err}, "a model is a directory with config.json, model.safetensors and tokenizer.json, or %s", demo.Name)
		}
		return nil, err
	}
	process.SmallHeap()
	return b, nil
}

// closeText gives the tokenizer's memory back, some 40 MB for a vocabulary of 50,000: a training needs none of it once its
// rows are read.
func (b *base) closeText() {
	if b.tok != nil {
		b.tok.Close()
		b.tok = nil
		process.FreeMemory()
	}
}

func (b *base) close() {
	if b.tok != nil {
		b.tok.Close()
	}
	if b.Model != nil {
		b.Model.Close()
	}
	b.pool.Close()
}

// chatOf is the base's chat template, if it is the one that a prompt was trained with.
func (b *base) chatOf(m *prompt.Meta) (*chat.Template, error) {
	t, err := b.chat()
	if err == nil && t.Sum() != m.Chat {
		return nil, fmt.Errorf("the chat template of %q is another (%.8s) than the prompt was trained with (%.8s)", b.Name, t.Sum(), m.Chat)
	}
	return t, err
}

// eos is the token that ends a target.
func (b *base) eos() (int32, error) {
	if len(b.EOS) == 0 {
		return 0, fmt.Errorf("%s names no eos_token_id in its config.json, so nothing would end a target", b.Name)
	}
	return b.EOS[0], nil
}

// pathFrom is a path as a prompt's file keeps it: relative to the file where it was relative, so that both can move together.
func pathFrom(promptFile, path string) string {
	if path == demo.Name || filepath.IsAbs(path) {
		return path
	}
	if rel, err := filepath.Rel(filepath.Dir(promptFile), path); err == nil {
		return filepath.ToSlash(rel)
	}
	if abs, err := filepath.Abs(path); err == nil { // the prompt's own path is absolute
		return abs
	}
	return path
}

// modelFrom is a model as a prompt's file keeps it.
func modelFrom(promptFile, model string) string {
	if onHub(model) {
		return hubPrefix + strings.TrimPrefix(model, hubPrefix)
	}
	return pathFrom(promptFile, model)
}

// pathAt is the place of a path that a prompt's file keeps.
func pathAt(promptFile, path string) string {
	if path == "" || path == demo.Name || filepath.IsAbs(path) || strings.HasPrefix(path, hubPrefix) {
		return path
	}
	return filepath.Join(filepath.Dir(promptFile), filepath.FromSlash(path))
}

// namedPrompt is a prompt and the file it came from.
type namedPrompt struct {
	*prompt.Prompt
	path string
}

// openPrompts reads prompts and the base all of them were made for.
func openPrompts(paths []string, model string, o computeOptions) ([]namedPrompt, *base, error) {
	var prompts []namedPrompt
	for _, path := range paths {
		p, err := loadPrompt(path)
		if err != nil {
			return nil, nil, err
		}
		prompts = append(prompts, p)
	}
	b, err := openBaseOf(prompts, model, o)
	return prompts, b, err
}

func loadPrompt(path string) (namedPrompt, error) {
	p, err := prompt.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = wrong{err}
	}
	return namedPrompt{p, path}, err
}

// openBaseOf opens the base that prompts were made for: the one given, or the one the first of them names.
func openBaseOf(prompts []namedPrompt, model string, o computeOptions) (*base, error) {
	if model == "" && len(prompts) > 0 {
		model = pathAt(prompts[0].path, prompts[0].Meta.Base.Path)
		if model == "" {
			return nil, wrong{withHint(fmt.Errorf("%s does not say which base it was made for", prompts[0].path), "name the base's directory with --model")}
		}
	}
	if model == "" {
		return nil, wrong{errors.New("there is neither --prompt nor --model")}
	}
	b, err := openBase(model, o)
	if err != nil {
		if len(prompts) > 0 && errors.Is(err, fs.ErrNotExist) {
			err = withHint(wrong{err}, "%s was made for %q; name that base's directory with --model", prompts[0].path, prompts[0].Meta.Base.Name)
		}
		return nil, err
	}
	for _, p := range prompts {
		if err := p.Fits(b.Name, b.Fingerprint, b.Hidden); err != nil {
			b.close()
			return nil, wrong{withHint(fmt.Errorf("%s: %w", p.path, err), "give its own base with --model, or train the prompt again for this one")}
		}
		if has := b.tok.Hash; p.Meta.Tokenizer != "" && p.Meta.Tokenizer != has {
			b.close()
			return nil, wrong{fmt.Errorf("%s: the prompt was made with another tokenizer.json (%.8s) than %q has (%.8s)", p.path, p.Meta.Tokenizer, b.Name, has)}
		}
	}
	return b, nil
}
