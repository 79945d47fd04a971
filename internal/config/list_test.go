package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestALineOfAListHasTheWordsThatAShellReads(t *testing.T) {
	for _, line := range []string{
		`a.yaml`, `a.yaml  --set	b=c`, `"a b.yaml" --set 'prompt.text=How "good"?'`, `a\ b --set x=\"y\"`,
		`x --set 'a=\n' --set "b=\n \" \\ \$ \q"`, `a --set b=''`, `a"b"'c'd ""`, `ü.yaml --set prompt.text=é`,
	} {
		out, err := exec.Command("sh", "-c", `printf '%s\n' `+line).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if got, err := splitWords(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got the words %q and the error %v, want %q as of sh", line, got, err, want)
		}
	}
}

func TestAListHasATaskForEachLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tasks.txt")
	text := "# of today\n\na.yaml\n  b.yaml --set train.seed=1 --set=prompt.text='a b'\r\n" +
		"c.yaml --seed 1\nd.yaml --set\n-o x\n-\ne.yaml 'x\nf.yaml \\"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadList(path)
	if err != nil || len(entries) != 8 {
		t.Fatalf("got %d tasks and the error %v, want 8", len(entries), err)
	}
	e := entries[1]
	if e.Path != "b.yaml" || !slices.Equal(e.Set, []string{"train.seed=1", "prompt.text=a b"}) ||
		e.Name != path+":4: b.yaml" {
		t.Errorf("line 4 is read as %+v", e)
	}
	for i, want := range []string{"", "", `"--seed" is neither --set`, "--set has no KEY=VALUE",
		`begins with "-o"`, "standard input", "quote ' is not closed", "ends in a backslash"} {
		err := entries[i].Err
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: the error is %v, want %q", entries[i].Name, err, want)
		}
	}
}

func TestAFolderHasATaskForEachYAMLFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "c.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadList(dir)
	if err != nil || len(entries) != 2 || entries[0].Path != filepath.Join(dir, "a.yaml") ||
		entries[1].Path != filepath.Join(dir, "b.yml") {
		t.Errorf("got %+v and the error %v, want a.yaml and b.yml", entries, err)
	}
}

func TestAListWithoutTasksIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tasks.txt")
	if err := os.WriteFile(path, []byte("# none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir: "has no files that end in .yaml", path: "has no lines with tasks", dir + "/x": "no such file",
	} {
		if _, err := ReadList(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q", path, err, want)
		}
	}
}
