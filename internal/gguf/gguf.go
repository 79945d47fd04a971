// Package gguf presents a GGUF file, the format of llama.cpp, as a Hugging Face checkpoint: config.json,
// tokenizer.json and the files beside them, and tensors under the names of transformers. It knows what
// llama.cpp's converter changes in a checkpoint. Package tensorfile reads the bytes.
package gguf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ptune/internal/tensorfile"
)

// Checkpoint is a GGUF file as a checkpoint. Weights holds the mapped files, which its user closes.
type Checkpoint struct {
	Name    string // of the file, without .gguf and the number of a split file
	Files   fs.FS  // config.json, tokenizer.json, tokenizer_config.json
	Weights *tensorfile.Dir
}

// Find returns the GGUF file that path is, or the only one of the directory path if that has no
// safetensors. Split files count as one. It returns "" if the path is not about GGUF.
func Find(path string) (file string, err error) {
	if strings.HasSuffix(path, ".gguf") && !isDir(path) {
		return path, nil
	}
	for _, weights := range []string{"model.safetensors", "model.safetensors.index.json"} {
		if _, err := os.Stat(filepath.Join(path, weights)); err == nil {
			return "", nil
		}
	}
	found, err := filepath.Glob(filepath.Join(escape(path), "*.gguf"))
	if err != nil || len(found) == 0 {
		return "", nil
	}
	models := map[string]string{}
	for _, f := range found {
		// Files for images beside a model, which llama.cpp calls mmproj, are no models.
		if name := tensorfile.GGUFName(f); !strings.HasPrefix(name, "mmproj") {
			models[name] = cmp.Or(models[name], f)
		}
	}
	switch len(models) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", fmt.Errorf("the directory %s has %d GGUF files; give the path of one, for example %s",
			path, len(models), found[0])
	}
	for _, f := range models {
		file = f
	}
	return file, nil
}

// escape returns a path that filepath.Glob takes literally.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Open maps a GGUF file, or with copied reads it into memory.
func Open(file string, copied bool) (*Checkpoint, error) {
	open := tensorfile.OpenGGUF
	if copied {
		open = tensorfile.ReadGGUF
	}
	g, err := open(file)
	if err != nil {
		return nil, err
	}
	c, err := convert(g)
	if err != nil {
		g.Weights.Close()
		return nil, fmt.Errorf("read GGUF %q: %w", file, err)
	}
	return c, nil
}

// convert returns the checkpoint of an open file. It takes over its weights.
func convert(g *tensorfile.GGUF) (*Checkpoint, error) {
	m := &metadata{GGUF: g}
	if m.arch, _ = g.String("general.architecture"); m.arch == "" {
		return nil, errors.New("it has no general.architecture")
	}
	a, err := find(m.arch)
	if err != nil {
		return nil, err
	}
	config := a.config(m)
	if err := errors.Join(m.errs...); err != nil {
		return nil, err
	}
	if err := a.rename(m, g.Weights); err != nil {
		return nil, err
	}
	settings, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	beside := os.DirFS(filepath.Dir(g.Path))
	files := memory{
		"config.json": func() ([]byte, error) { return settings, nil },
	}
	if err := m.tokenizer(files, beside); err != nil {
		return nil, err
	}
	return &Checkpoint{Name: tensorfile.GGUFName(g.Path), Files: files, Weights: g.Weights}, nil
}

// memory is a file system of one directory. A file is made when it is opened.
type memory map[string]func() ([]byte, error)

// Open implements fs.FS.
func (m memory) Open(name string) (fs.File, error) {
	make, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	data, err := make()
	if err != nil {
		return nil, err
	}
	return &file{Reader: bytes.NewReader(data), name: name}, nil
}

// file is an open file of memory.
type file struct {
	*bytes.Reader
	name string
}

func (f *file) Stat() (fs.FileInfo, error) { return info{f.name, f.Reader.Size()}, nil }
func (f *file) Close() error               { return nil }

// info is what fs.FileInfo says of a file of memory.
type info struct {
	name string
	size int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return 0o444 }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return false }
func (i info) Sys() any           { return nil }
