package files

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAnOutputThatIsAlsoReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	rows, link, other := filepath.Join(dir, "rows"), filepath.Join(dir, "link"), filepath.Join(dir, "other")
	for _, path := range []string{rows, other} {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(rows, link); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		output string
		ok     bool
	}{{rows, false}, {link, false}, {other, true}, {filepath.Join(dir, "new"), true}, {os.DevNull, true}} {
		if err := Check(x.output, "", rows, os.DevNull); (err == nil) != x.ok {
			t.Errorf("%s: the error is %v", x.output, err)
		}
	}
}
