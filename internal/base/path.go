package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ptune/internal/demo"
	"ptune/internal/failure"
	"ptune/internal/hub"
)

// hubPrefix marks a model of the Hugging Face cache in a prompt's file, where it could also be a path.
const hubPrefix = "hf://"

// onHub reports whether model names a model of the Hugging Face cache and not a directory.
func onHub(model string) bool {
	if strings.HasPrefix(model, hubPrefix) {
		return true
	}
	if _, err := os.Stat(model); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, ok := hub.ParseRepo(model)
	return ok
}

// Dir returns the directory of a model: the path itself, or the cache's snapshot of org/name.
func Dir(model string) (string, error) {
	if model == demo.Name || !onHub(model) {
		return model, nil // if it is missing, reading its files reports that
	}
	repo, ok := hub.ParseRepo(strings.TrimPrefix(model, hubPrefix))
	if !ok {
		return "", failure.Usage(fmt.Errorf(
			"%q is not the name of a model on the Hub, want org/name or org/name@revision", model))
	}
	cache, err := hub.CacheDir(os.Getenv)
	if err != nil {
		return "", err
	}
	dir, err := repo.Find(cache)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("model %q: it is neither a directory nor in the Hugging Face cache (%s): %w",
			model, cache, fs.ErrNotExist)
		return "", failure.Usage(failure.Hint(err, "ptune pull %s downloads it", repo))
	}
	return dir, err
}

// PathFrom returns path as promptFile stores it: a relative path becomes relative to the file's
// folder, so that both can move together.
func PathFrom(promptFile, path string) string {
	if path == demo.Name || filepath.IsAbs(path) {
		return path
	}
	if rel, err := filepath.Rel(filepath.Dir(promptFile), path); err == nil {
		return filepath.ToSlash(rel)
	}
	if abs, err := filepath.Abs(path); err == nil { // promptFile is absolute
		return abs
	}
	return path
}

// ModelFrom returns model as promptFile stores it.
func ModelFrom(promptFile, model string) string {
	if onHub(model) {
		return hubPrefix + strings.TrimPrefix(model, hubPrefix)
	}
	return PathFrom(promptFile, model)
}

// PathAt returns the path that promptFile stores as path. It is the inverse of PathFrom and ModelFrom.
func PathAt(promptFile, path string) string {
	if path == "" || path == demo.Name || filepath.IsAbs(path) || strings.HasPrefix(path, hubPrefix) {
		return path
	}
	return filepath.Join(filepath.Dir(promptFile), filepath.FromSlash(path))
}
