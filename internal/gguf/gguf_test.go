package gguf_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/gguf"
	"ptune/internal/kernels"
	"ptune/internal/tensorfile"
)

func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("GGUF"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADirectoryWithOneModelInGGUFIsThatModel(t *testing.T) {
	for _, c := range []struct {
		files      []string
		want, fail string
	}{
		{files: []string{"a.gguf"}, want: "a.gguf"},
		{files: []string{"a.gguf", "config.json", "mmproj-a.gguf"}, want: "a.gguf"},
		{files: []string{"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"}, want: "a-00001-of-00002.gguf"},
		{files: []string{"a.gguf", "model.safetensors"}},
		{files: []string{"a.gguf", "model.safetensors.index.json"}},
		{files: []string{"config.json"}},
		{files: []string{"a.gguf", "b.gguf"}, fail: "has 2 GGUF files; give the path of one"},
	} {
		dir := filepath.Join(t.TempDir(), "a[b]*")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, c.files...)
		got, err := gguf.Find(dir)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%q: error is %v, want %q", c.files, err, c.fail)
			}
			continue
		}
		if c.want != "" {
			c.want = filepath.Join(dir, c.want)
		}
		if err != nil || got != c.want {
			t.Errorf("%q: found %q (%v), want %q", c.files, got, err, c.want)
		}
	}
	if got, err := gguf.Find("not/there.gguf"); err != nil || got != "not/there.gguf" {
		t.Errorf("a file that is missing: found %q (%v), want its path, so that reading it fails", got, err)
	}
}

// The sizes of blocks are in the tables of two packages.
func TestTensorsOfEachFormatHaveTheSizeThatKernelsRead(t *testing.T) {
	for number := range uint32(64) {
		name, values, bytes := tensorfile.GGMLType(number)
		d, err := kernels.ParseDType(name)
		if err == nil && (d.BlockValues() != values || d.BlockBytes() != bytes) {
			t.Errorf("%s has blocks of %d values in %d bytes, kernels read %d in %d", name, values, bytes,
				d.BlockValues(), d.BlockBytes())
		}
	}
}

func TestTheFilesOfACheckpointAreThereAndNoOthers(t *testing.T) {
	c, err := gguf.Open(filepath.Join(goldenDir, "qwen2", "model.gguf"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Weights.Close()
	for _, name := range []string{"config.json", "tokenizer.json", "tokenizer_config.json"} {
		if data, err := fs.ReadFile(c.Files, name); err != nil || data[0] != '{' {
			t.Errorf("%s begins with %.10q (%v)", name, data, err)
		}
	}
	if _, err := c.Files.Open("generation_config.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: error is %v", err)
	}
}
