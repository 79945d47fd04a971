package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ptune/internal/failure"
	"ptune/internal/prompt"
)

// Prompt is a soft prompt and the file it came from.
type Prompt struct {
	*prompt.Prompt
	Path string
}

// LoadPrompt reads a prompt's file or a PEFT adapter directory. A file that is missing or no prompt is a
// usage error; one that cannot be read is not.
func LoadPrompt(path string) (Prompt, error) {
	p, err := prompt.Load(path)
	if errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(*fs.PathError)) {
		err = failure.Usage(err)
	}
	return Prompt{p, path}, err
}

// Members returns the files of an ensemble, joined by commas. The name of one file may contain commas.
func Members(joined string) []string {
	if _, err := os.Stat(joined); err == nil {
		return []string{joined}
	}
	return strings.Split(joined, ",")
}

// unfinished are the files of prompts that a run writes when it is interrupted or diverges.
var unfinished = map[string]bool{"interrupted.st": true, "diverged.st": true}

// PromptPaths returns paths with each directory that is not a PEFT adapter replaced by the .st files in
// it, in the order of their names, without those of unfinished runs.
func PromptPaths(paths []string) ([]string, error) {
	var all []string
	for _, path := range paths {
		entries, err := os.ReadDir(path)
		if err != nil { // a file, or LoadPrompt reports what is wrong
			all = append(all, path)
			continue
		}
		var found []string
		for _, e := range entries {
			switch {
			case e.Name() == prompt.AdapterConfig:
				found = []string{path}
			case unfinished[e.Name()]:
			case filepath.Ext(e.Name()) == ".st" && !slices.Contains(found, path):
				found = append(found, filepath.Join(path, e.Name()))
			}
		}
		if found == nil {
			return nil, failure.Usage(fmt.Errorf("%s: the directory has neither prompt files (.st) nor %s",
				path, prompt.AdapterConfig))
		}
		all = append(all, found...)
	}
	return all, nil
}

// PromptFiles returns the names of a folder's .st files without those of unfinished runs, in order.
func PromptFiles(folder string) (names []string, err error) {
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != ".st" || strings.HasPrefix(name, ".") || unfinished[name] {
			continue
		}
		// To open a FIFO would wait for a writer.
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil && !info.Mode().IsRegular() {
			continue
		}
		names = append(names, name)
	}
	return names, err
}

// adapterBase returns the base that a PEFT adapter names: a directory, as seen from here or from the
// adapter, or a model of the Hub. It is empty for a prompt's file and for an adapter that names none.
func adapterBase(p Prompt) string {
	name := p.Meta.Base.Name
	if name == "" || !isDir(p.Path) {
		return ""
	}
	if near := filepath.Join(p.Path, name); !isDir(name) && isDir(near) {
		return near
	}
	return name
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// isGGUF reports whether path is a GGUF file.
func isGGUF(path string) bool {
	_, err := os.Stat(path)
	return err == nil && strings.HasSuffix(path, ".gguf")
}

// LoadPrompts reads prompts, as LoadPrompt does.
func LoadPrompts(paths []string) ([]Prompt, error) {
	var prompts []Prompt
	for _, path := range paths {
		p, err := LoadPrompt(path)
		if err != nil {
			return nil, err
		}
		prompts = append(prompts, p)
	}
	return prompts, nil
}

// OpenPrompts reads prompts and opens the base that all of them were made for, as OpenFor does.
func OpenPrompts(paths []string, model string, o Options) ([]Prompt, *Base, error) {
	prompts, err := LoadPrompts(paths)
	if err != nil {
		return nil, nil, err
	}
	b, err := OpenFor(prompts, model, o)
	return prompts, b, err
}

// OpenFor opens a base for prompts: model or, if that is empty, the base that the first prompt's file
// names. It refuses a base or tokenizer other than a prompt was trained with.
func OpenFor(prompts []Prompt, model string, o Options) (*Base, error) {
	if model == "" && len(prompts) > 0 {
		p := prompts[0]
		if model, _ = p.Base(); model == "" {
			return nil, failure.Usage(failure.Hint(
				fmt.Errorf("%s does not say which base it was made for", p.Path),
				"give the base's directory with --model"))
		}
	}
	if model == "" {
		return nil, failure.Usage(errors.New("neither --prompt nor --model is given"))
	}
	b, err := Open(model, o)
	if err != nil {
		if len(prompts) > 0 && errors.Is(err, fs.ErrNotExist) {
			err = failure.Hint(failure.Usage(err),
				"%s was made for %q; give that base's directory with --model (a prompt's file stores "+
					"its base's path relative to its own folder)", prompts[0].Path, prompts[0].Meta.Base.Name)
		}
		return nil, err
	}
	for _, p := range prompts {
		if err := b.Fits(p); err != nil {
			b.Close()
			return nil, failure.Usage(err)
		}
	}
	return b, nil
}

// Fits refuses a prompt that was made for another base or tokenizer.
func (b *Base) Fits(p Prompt) error {
	if err := p.Fits(b.Name, b.Fingerprint, b.Hidden); err != nil {
		return failure.Hint(fmt.Errorf("%s: %w", p.Path, err),
			"give the prompt's own base with --model, or train the prompt again for this one")
	}
	if was, is := p.Meta.Tokenizer, b.Tokenizer.Hash; was != "" && was != is {
		return failure.Hint(fmt.Errorf(
			"%s: the prompt was made with another tokenizer.json (%.8s) than that of %q (%.8s)",
			p.Path, was, b.Name, is),
			"tokenizer.json or the special tokens in the files beside it have changed, or an earlier "+
				"ptune read these files in another way; train the prompt again")
	}
	return nil
}
