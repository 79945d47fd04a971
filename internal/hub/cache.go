// Package hub finds models in the Hugging Face cache, laid out as huggingface_hub does, and downloads into it what is asked for. It knows
// files and HTTP, not what models are.
package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Repo is a model on the Hub: org/name, and a branch, tag or commit.
type Repo struct{ Name, Revision string }

// name is what huggingface_hub takes for a repository: at most one slash, and no tricks with dots.
var name = regexp.MustCompile(`^[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?$`)

// revision is a branch, a tag, a pull request's ref or a commit.
var revision = regexp.MustCompile(`^[A-Za-z0-9][\w.\-/]*$`)

// ParseRepo reads org/name or org/name@revision; ok tells whether text is of that form.
func ParseRepo(text string) (r Repo, ok bool) {
	r.Name, r.Revision, ok = strings.Cut(text, "@")
	if !ok {
		r.Revision = "main"
	}
	for _, part := range []string{r.Name, r.Revision} {
		if strings.Contains(part, "..") || strings.Contains(part, "--") || strings.Contains(part, "//") || len(part) > 96 {
			return r, false
		}
	}
	return r, strings.Contains(r.Name, "/") && name.MatchString(r.Name) && revision.MatchString(r.Revision)
}

func (r Repo) String() string {
	if r.Revision == "main" {
		return r.Name
	}
	return r.Name + "@" + r.Revision
}

// CacheDir is where huggingface_hub keeps repositories, by the environment that getenv reads: HF_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
func CacheDir(getenv func(string) string) (string, error) {
	switch {
	case getenv("HF_HUB_CACHE") != "":
		return getenv("HF_HUB_CACHE"), nil
	case getenv("HUGGINGFACE_HUB_CACHE") != "":
		return getenv("HUGGINGFACE_HUB_CACHE"), nil
	case getenv("HF_HOME") != "":
		return filepath.Join(getenv("HF_HOME"), "hub"), nil
	case getenv("XDG_CACHE_HOME") != "":
		return filepath.Join(getenv("XDG_CACHE_HOME"), "huggingface", "hub"), nil
	case getenv("HOME") != "":
		return filepath.Join(getenv("HOME"), ".cache", "huggingface", "hub"), nil
	}
	return "", errors.New("there is no HOME to look for the Hugging Face cache in; set HF_HUB_CACHE")
}

// folder is the repository's in the cache.
func (r Repo) folder(cache string) string {
	return filepath.Join(cache, "models--"+strings.ReplaceAll(r.Name, "/", "--"))
}

// commit is a full commit hash.
var commit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Find is the snapshot folder of a repository in the cache. An error that is fs.ErrNotExist means that it is not there.
func (r Repo) Find(cache string) (string, error) {
	at := r.Revision
	ref, err := os.ReadFile(filepath.Join(r.folder(cache), "refs", filepath.FromSlash(r.Revision)))
	if err == nil {
		if at = strings.TrimSpace(string(ref)); !commit.MatchString(at) {
			return "", fmt.Errorf("find %s in %s: its ref is %.60q, want a commit", r, cache, at)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find %s: %w", r, err)
	}
	if !commit.MatchString(at) {
		return "", fmt.Errorf("find %s in %s: %w", r, cache, fs.ErrNotExist)
	}
	dir := filepath.Join(r.folder(cache), "snapshots", at)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("find %s in %s: %w", r, cache, fs.ErrNotExist)
	}
	return dir, nil
}

// Cached lists the repositories that the cache has.
func Cached(cache string) []string {
	dirs, _ := filepath.Glob(filepath.Join(cache, "models--*"))
	var names []string
	for _, d := range dirs {
		names = append(names, strings.ReplaceAll(strings.TrimPrefix(filepath.Base(d), "models--"), "--", "/"))
	}
	return names
}
