package files_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"ptune/internal/files"
)

// Root may write everywhere, so the thread checks files as another user.
func TestAFolderWithoutPermissionIsFoundBeforehand(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o555), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if user := os.Getuid(); user == 0 {
		const nobody = 65534
		if err := syscall.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setfsuid(user)
	}
	for _, err := range []error{
		files.Check(filepath.Join(dir, "x")), files.CheckWithFolder(filepath.Join(dir, "new", "x")),
	} {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("a folder without permission: error is %v", err)
		}
	}
}
