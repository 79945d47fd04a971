package arch_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ptune/internal/arch"
)

// FuzzAModelDirectoryIsReadOrRefused changes the config.json and the shard index of a tiny model.
func FuzzAModelDirectoryIsReadOrRefused(f *testing.F) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("../../testdata/golden", name))
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	dirs, err := filepath.Glob("../../testdata/golden/*/config.json")
	if err != nil || len(dirs) == 0 {
		f.Fatal("there are no goldens")
	}
	const tiny = "llama-one-layer-f32/"
	weights := read(tiny + "model.safetensors")
	for _, dir := range dirs {
		f.Add(read(filepath.Join(filepath.Base(filepath.Dir(dir)), "config.json")), []byte{})
	}
	own := read(tiny + "config.json")
	// What Python's json module writes and JSON does not have.
	f.Add(bytes.Replace(own, []byte("{"), []byte(`{"x": [NaN, -Infinity], "rope_scaling": false, `), 1), []byte{})
	f.Add(bytes.Replace(own, []byte(`"hidden_size": `), []byte(`"hidden_size": 1.5e`), 1), []byte{})
	f.Add(own, []byte(`{"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}`))
	f.Add(own, []byte(`{"weight_map": {"model.embed_tokens.weight": "../model.safetensors"},`+
		` "metadata": {"total_size": 1}}`))
	whole, sharded := f.TempDir(), f.TempDir()
	write := func(t testing.TB, dir, name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(f, whole, "model.safetensors", weights)
	write(f, sharded, "a.safetensors", weights)
	f.Fuzz(func(t *testing.T, config, index []byte) {
		dir := whole
		if len(index) > 0 {
			dir = sharded
			write(t, dir, "model.safetensors.index.json", index)
		}
		write(t, dir, "config.json", config)
		m, err := arch.Load(dir)
		if err == nil {
			m.Close()
		} else if len(err.Error()) > 20_000 || strings.Contains(err.Error(), "runtime error") {
			t.Errorf("the error is %.2000s", err)
		}
	})
}
