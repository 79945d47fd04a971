package serve

import (
	"os"
	"path/filepath"
	"testing"

	"ptune/internal/prompt"
)

func TestEachNameOfAFileFollowsItsChanges(t *testing.T) {
	b, err := openDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	meta := prompt.Meta{Input: "{text}", Target: "{y}"}
	dir := t.TempDir()
	path, adapter := filepath.Join(dir, "x.st"), filepath.Join(dir, "adapter")
	write := func(path string, rows int) {
		t.Helper()
		p := newPrompt(b, 1, rows, meta)
		if filepath.Ext(path) == ".st" {
			err = p.Save(path)
		} else {
			err = p.SavePEFT(path, b.Name, 1, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(path, 3)
	write(adapter, 4)
	var stars string
	server := start(t, func(o *Options) {
		stars = filepath.Join(o.Folder, "stars.st")
		write(stars, 5)
		write(filepath.Join(o.Folder, "same.st"), 2)
		o.Files = map[string]string{"a": path, "b": path, "c": dir + "/./x.st", "peft": adapter, "s": stars,
			"same": o.Folder + "/./same.st"}
	})
	rows := func(want map[string]int) {
		t.Helper()
		server.server.models.scan()
		for id, n := range want {
			if m := server.server.models.get(id); m == nil || m.rows != n {
				t.Errorf("%s is %+v, want %d rows", id, m, n)
			}
		}
	}
	rows(map[string]int{"a": 3, "b": 3, "c": 3, "peft": 4, "s": 5, "stars": 5, "same": 2})
	write(path, 6)
	write(stars, 7)
	write(adapter, 8)
	rows(map[string]int{"a": 6, "b": 6, "c": 6, "peft": 8, "s": 7, "stars": 7, "same": 2})
	other := filepath.Join(dir, "other") // copied over the adapter, in place
	write(other, 9)
	const weights, config = "adapter_model.safetensors", "adapter_config.json"
	for _, name := range []string{weights, config} {
		content, err := os.ReadFile(filepath.Join(other, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(adapter, name), content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rows(map[string]int{"peft": 9})
	if err := os.Remove(stars); err != nil {
		t.Fatal(err)
	}
	rows(map[string]int{"s": 7}) // it was named, so it stays
	if m := server.server.models.get("stars"); m != nil {
		t.Errorf("stars is there without its file")
	}
}
