package tensorfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"ptune/internal/files"
)

// Rewrite writes the files to another directory, with the tensors of change in place of those with
// the same names. It copies files that have none of them.
func (d *Dir) Rewrite(to string, change map[string]Tensor) error {
	for _, f := range d.files {
		path := filepath.Join(to, filepath.Base(f.Path))
		changed := false
		var tensors []Tensor
		for _, name := range slices.Sorted(maps.Keys(f.tensors)) {
			t := f.tensors[name]
			if other, ok := change[name]; ok {
				t, changed = other, true
			}
			tensors = append(tensors, t)
		}
		var err error
		if changed {
			err = Write(path, tensors, f.Meta)
		} else {
			err = files.Copy(f.Path, path)
		}
		if err != nil {
			return err
		}
	}
	return d.rewriteIndex(to, change)
}

// rewriteIndex writes the index of shards, if there is one, with the new total size.
func (d *Dir) rewriteIndex(to string, change map[string]Tensor) error {
	const name = "model.safetensors.index.json"
	if len(d.files) == 1 && filepath.Base(d.files[0].Path) == "model.safetensors" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(d.Path, name))
	if err != nil {
		return fmt.Errorf("read weights: %w", err)
	}
	var index map[string]json.RawMessage
	var meta map[string]any
	if err := files.ParseJSON(data, &index); err != nil {
		return fmt.Errorf("read weights %q: %w", name, err)
	}
	if len(index["metadata"]) > 0 {
		if err := json.Unmarshal(index["metadata"], &meta); err != nil {
			return fmt.Errorf("read weights %q: metadata: %w", name, err)
		}
	}
	size := 0
	for n, t := range d.tensors {
		if other, ok := change[n]; ok {
			t = other
		}
		size += len(t.Data)
	}
	if meta == nil {
		meta = map[string]any{}
	}
	meta["total_size"] = size
	if index["metadata"], err = json.Marshal(meta); err != nil {
		return err
	}
	return files.WriteJSON(filepath.Join(to, name), index)
}
