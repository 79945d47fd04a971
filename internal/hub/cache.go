// Package hub finds models in the Hugging Face cache and downloads models into it. The layout is
// that of huggingface_hub: blobs named by their hash, snapshots of links to them, refs to
// snapshots.
package hub

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Repo is a model on the Hub: its org/name, and a branch, tag or commit.
type Repo struct{ Name, Revision string }

// mainBranch is the branch without a revision.
const mainBranch = "main"

// name matches what huggingface_hub accepts as a repository.
var name = regexp.MustCompile(`^[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?$`)

// revision matches a branch, a tag, the ref of a pull request or a commit.
var revision = regexp.MustCompile(`^[A-Za-z0-9][\w.\-/]*$`)

// ParseRepo parses org/name or org/name@revision. ok is false if text has another form.
func ParseRepo(text string) (r Repo, ok bool) {
	r.Name, r.Revision, ok = strings.Cut(text, "@")
	if !ok {
		r.Revision = mainBranch
	}
	for _, part := range []string{r.Name, r.Revision} {
		for _, not := range []string{"..", "--", "//"} {
			if strings.Contains(part, not) || len(part) > 96 {
				return r, false
			}
		}
	}
	ok = strings.Contains(r.Name, "/") && name.MatchString(r.Name)
	return r, ok && revision.MatchString(r.Revision)
}

func (r Repo) String() string {
	if r.Revision == mainBranch {
		return r.Name
	}
	return r.Name + "@" + r.Revision
}

// CacheDir returns the folder of huggingface_hub's cache, from the environment: HF_HUB_CACHE,
// HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
func CacheDir(getenv func(string) string) (string, error) {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if cache := getenv(name); cache != "" {
			return expand(cache, getenv), nil
		}
	}
	if home := home(getenv); home != "" {
		return filepath.Join(home, "hub"), nil
	}
	return "", errors.New(
		"cannot find the Hugging Face cache, because HOME is not set; set HF_HUB_CACHE")
}

// home returns Hugging Face's folder, "" if no variable tells: HF_HOME, XDG_CACHE_HOME/huggingface or
// ~/.cache/huggingface.
func home(getenv func(string) string) string {
	switch {
	case getenv("HF_HOME") != "":
		return expand(getenv("HF_HOME"), getenv)
	case getenv("XDG_CACHE_HOME") != "":
		return filepath.Join(expand(getenv("XDG_CACHE_HOME"), getenv), "huggingface")
	case getenv("HOME") != "":
		return filepath.Join(getenv("HOME"), ".cache", "huggingface")
	}
	return ""
}

// expand replaces ~ at the beginning of a path by HOME, and $NAME by the variable's value if it has one.
// huggingface_hub does the same: a quoted ~ in a shell or a file of variables reaches the program.
func expand(path string, getenv func(string) string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') && getenv("HOME") != "" {
		path = getenv("HOME") + rest
	}
	return os.Expand(path, func(name string) string {
		return cmp.Or(getenv(name), "$"+name)
	})
}

// folder returns the folder of the repository in the cache.
func (r Repo) folder(cache string) string {
	return filepath.Join(cache, "models--"+strings.ReplaceAll(r.Name, "/", "--"))
}

// commit matches a full commit hash.
var commit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Find returns the snapshot folder of a repository in the cache. The error is fs.ErrNotExist if the
// cache does not have it.
func (r Repo) Find(cache string) (string, error) {
	at := r.Revision
	ref, err := os.ReadFile(filepath.Join(r.folder(cache), "refs", filepath.FromSlash(r.Revision)))
	if err == nil {
		if at = strings.TrimSpace(string(ref)); !commit.MatchString(at) {
			return "", fmt.Errorf("find %s in %s: the ref is %.60q, want a commit", r, cache, at)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find %s: %w", r, err)
	}
	if !commit.MatchString(at) {
		if at, err = r.only(cache); err != nil {
			return "", fmt.Errorf("find %s in %s: %w", r, cache, err)
		}
	}
	dir := filepath.Join(r.folder(cache), "snapshots", at)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("find %s in %s: %w", r, cache, fs.ErrNotExist)
	}
	return dir, nil
}

// incomplete returns the path of the empty file that marks a snapshot as not downloaded whole.
func (r Repo) incomplete(cache, commit string) string {
	return filepath.Join(r.folder(cache), commit+".incomplete")
}

// only returns the commit of the only snapshot in the cache. A model that was downloaded by its commit has a
// snapshot and no ref of the branch.
func (r Repo) only(cache string) (string, error) {
	if r.Revision != mainBranch {
		return "", fs.ErrNotExist
	}
	entries, err := os.ReadDir(filepath.Join(r.folder(cache), "snapshots"))
	if err != nil {
		return "", err
	}
	var commits []string
	for _, e := range entries {
		if _, err := os.Stat(r.incomplete(cache, e.Name())); err != nil && commit.MatchString(e.Name()) {
			commits = append(commits, e.Name())
		}
	}
	switch len(commits) {
	case 0:
		return "", fs.ErrNotExist
	case 1:
		return commits[0], nil
	}
	return "", fmt.Errorf("no branch main is recorded, and there are several snapshots; give one of %s@%s",
		r.Name, strings.Join(commits, ", @"))
}

// Cached returns the names of the repositories in the cache.
func Cached(cache string) []string {
	dirs, _ := filepath.Glob(filepath.Join(cache, "models--*"))
	var names []string
	for _, d := range dirs {
		name := strings.TrimPrefix(filepath.Base(d), "models--")
		names = append(names, strings.ReplaceAll(name, "--", "/"))
	}
	return names
}
