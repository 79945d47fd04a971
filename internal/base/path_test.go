package base

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/demo"
	"ptune/internal/failure"
)

// cache makes an empty working folder and a Hugging Face cache with org/name, and returns its snapshot.
func cache(t *testing.T) string {
	t.Helper()
	t.Chdir(t.TempDir())
	hub := t.TempDir()
	t.Setenv("HF_HUB_CACHE", hub)
	commit := strings.Repeat("0123456789", 4)
	snapshot := filepath.Join(hub, "models--org--name", "snapshots", commit)
	refs := filepath.Join(hub, "models--org--name", "refs")
	if err := errors.Join(os.MkdirAll(snapshot, 0o755), os.MkdirAll(refs, 0o755),
		os.WriteFile(filepath.Join(refs, "main"), []byte(commit), 0o644)); err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func TestAModelIsADirectoryFirstThenANameOnTheHub(t *testing.T) {
	snapshot := cache(t)
	for _, c := range []struct{ model, want string }{
		{"org/name", snapshot}, {"hf://org/name", snapshot}, {"org/name@main", snapshot},
		{demo.Name, demo.Name}, {"missing", "missing"}, {"./org/name", "./org/name"},
		{"/abs/dir", "/abs/dir"},
	} {
		if got, err := Dir(c.model); err != nil || got != c.want {
			t.Errorf("%s: directory %q (%v), want %q", c.model, got, err, c.want)
		}
	}
	for _, model := range []string{"org/other", "hf://org/other", "hf://no name"} {
		if _, err := Dir(model); !failure.IsUsage(err) ||
			strings.Contains(model, "other") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error is %v, want a mistake of the user", model, err)
		}
	}
	if err := os.MkdirAll("org/name", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Dir("org/name"); err != nil || got != "org/name" {
		t.Errorf("org/name is a directory here, got %q (%v)", got, err)
	}
	if got, err := Dir("hf://org/name"); err != nil || got != snapshot {
		t.Errorf("hf://org/name is never a directory here, got %q (%v)", got, err)
	}
}

func TestAPromptFileFindsItsBaseAfterBothWereMoved(t *testing.T) {
	cache(t)
	if err := os.MkdirAll("models/base", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, model, stored, found string }{
		{"runs/a/p.st", "models/base", "../../models/base", "models/base"},
		{"p.st", "base", "base", "base"},
		{"runs/p.st", "/data/base", "/data/base", "/data/base"},
		{"runs/p.st", demo.Name, demo.Name, demo.Name},
		{"runs/p.st", "org/name", "hf://org/name", "hf://org/name"},
		{"runs/p.st", "hf://org/name", "hf://org/name", "hf://org/name"},
	} {
		stored := ModelFrom(c.file, c.model)
		if found := PathAt(c.file, stored); stored != c.stored || found != c.found {
			t.Errorf("%s of %s is stored as %q and found at %q, want %q and %q", c.model, c.file, stored,
				found, c.stored, c.found)
		}
	}
	if got := PathAt("elsewhere/runs/a/p.st", "../../models/base"); got != "elsewhere/models/base" {
		t.Errorf("after a move the base is looked for at %q, want elsewhere/models/base", got)
	}
	if got := PathAt("p.st", ""); got != "" {
		t.Errorf("a prompt that names no base has the base %q", got)
	}
	// A relative path cannot be relative to an absolute file: the working folder may change.
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := PathFrom("/elsewhere/p.st", "base"); got != filepath.Join(here, "base") {
		t.Errorf("the base of /elsewhere/p.st is stored as %q, want an absolute path", got)
	}
}

func TestAFileWithACommaInItsNameIsNoEnsemble(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("a,b.st", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for joined, want := range map[string][]string{
		"a,b.st": {"a,b.st"}, "a.st,b.st": {"a.st", "b.st"}, "a.st": {"a.st"},
	} {
		if got := Members(joined); !slices.Equal(got, want) {
			t.Errorf("%s has the members %q, want %q", joined, got, want)
		}
	}
}

func TestOnlyTheMessageOfARustPanicIsShown(t *testing.T) {
	for text, want := range map[string]string{
		"\nthread 'a' panicked at lib.rs:7:9:\nno vocabulary\nnote: b": "no vocabulary",
		"memory allocation of 9 bytes failed\nmore":                    "memory allocation of 9 bytes failed",
		"panicked at the end":                                          "panicked at the end",
		"":                                                             "",
	} {
		if got := panicMessage(text); got != want {
			t.Errorf("%q: message is %q, want %q", text, got, want)
		}
	}
	if n := len(panicMessage(strings.Repeat("x", 1000))); n != 200 {
		t.Errorf("a long message has %d bytes, want 200", n)
	}
}

func TestADirectoryOfPromptsHasNoUnfinishedOnes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.st", "diverged.st", "interrupted.st", "b.st"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := PromptPaths([]string{dir})
	want := []string{filepath.Join(dir, "a.st"), filepath.Join(dir, "b.st")}
	if err != nil || !slices.Equal(paths, want) {
		t.Errorf("the prompts are %q (%v), want %q", paths, err, want)
	}
}
