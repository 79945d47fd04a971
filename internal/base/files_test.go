package base

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestPromptFilesAreRegularFilesThatAreNotHidden(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"b.st", "a.st", ".new.st", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(folder, "fifo.st"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "folder.st"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := PromptFiles(folder)
	if want := []string{"a.st", "b.st"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("PromptFiles = %q, %v, want %q", got, err, want)
	}
}
