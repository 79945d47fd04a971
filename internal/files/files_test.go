package files_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ptune/internal/files"
)

func TestAFailedWriteLeavesTheOldFileAndNothingElse(t *testing.T) {
	t.Chdir(t.TempDir())
	broken := errors.New("the disk is full")
	half := func(w io.Writer) error {
		if _, err := w.Write([]byte("half")); err != nil {
			return err
		}
		return broken
	}
	for name, make := range map[string]func() error{
		"a file":       func() error { return nil },
		"a link to it": func() error { return os.Symlink("old", "x.st") },
		"two names":    func() error { return os.Link("old", "x.st") },
	} {
		os.Remove("x.st")
		path := "x.st"
		if err := errors.Join(os.WriteFile("old", []byte("old"), 0o644), make()); err != nil {
			t.Fatal(err)
		} else if name == "a file" {
			path = "old"
		}
		before := names(t, ".")
		err := files.Write(path, half)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error is %v, want the cause with the path", name, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
			t.Errorf("%s: the file is %q (%v), want the old one", name, data, err)
		}
		if after := names(t, "."); !slices.Equal(after, before) {
			t.Errorf("%s: the folder has %q, want %q as before", name, after, before)
		}
	}
}

// names returns the names in a folder.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// write writes "new" to a path that Check finds good.
func write(t *testing.T, path string) {
	t.Helper()
	if err := files.Check(path); err != nil {
		t.Errorf("%s: Check finds %v", path, err)
	}
	if err := files.WriteBytes(path, []byte("new")); err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

// holds fails unless the regular file has the content "new" and the mode.
func holds(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "new" || info.Mode() != mode {
		t.Errorf("%s has %q (%v) and the mode %v, want new and %v", path, data, err, info.Mode(), mode)
	}
}

func TestLinksAreFollowed(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.MkdirAll("a/b", 0o755), os.WriteFile("a/file", []byte("old content"), 0o644),
		os.Symlink("a/file", "link"), os.Symlink("link", "second"), os.Symlink("a/none", "dangling"),
		os.Symlink("a/b", "folder"), os.Symlink("../up", "a/b/relative"), os.Symlink("up", "a/rel"),
		os.WriteFile("one", []byte("old content"), 0o600), os.Link("one", "two")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, target string }{
		{"link", "a/file"}, {"second", "a/file"}, {"dangling", "a/none"}, {"folder/new", "a/b/new"},
		{"folder/../beside", "a/beside"}, {"folder/relative", "a/up"}, {"folder/../rel", "a/up"},
	} {
		os.Remove("a/none")
		write(t, c.path)
		holds(t, c.target, 0o644)
	}
	for _, link := range []string{"link", "second", "dangling", "folder", "a/b/relative"} {
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no link any more (%v)", link, err)
		}
	}
	write(t, "two")
	holds(t, "one", 0o600)
	holds(t, "two", 0o600)
	if err := os.Symlink("loop", "loop"); err != nil {
		t.Fatal(err)
	}
	if err := files.WriteBytes("loop", nil); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: error is %v", err)
	}
}

func TestAFileKeepsItsModeAndANewOneObeysTheUmask(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, mode := range []os.FileMode{0o600, 0o400, 0o755, 0o666} {
		path := fmt.Sprintf("%o", mode)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		write(t, path)
		holds(t, path, mode)
	}
	for _, umask := range []int{0o022, 0o077, 0o002} {
		old := syscall.Umask(umask)
		path := fmt.Sprintf("new%o", umask)
		write(t, path)
		syscall.Umask(old)
		holds(t, path, 0o666&^os.FileMode(umask))
	}
}

func TestWhatIsNoRegularFileIsWrittenTo(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := syscall.Mkfifo("fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	read, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create("open")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("old content"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove("open"), os.Symlink("/dev/null", "null"),
		os.Symlink("fifo", "to fifo")); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile("fifo", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"fifo", "to fifo"} {
		write(t, path)
		text := make([]byte, 10)
		if n, err := fifo.Read(text); string(text[:n]) != "new" {
			t.Errorf("%s: the reader got %q (%v), want new", path, text[:n], err)
		}
	}
	if t.Failed() {
		return // rather than replace a device of this machine
	}
	write(t, "/dev/null")
	write(t, "null")
	write(t, fmt.Sprintf("/dev/fd/%d", w.Fd()))
	write(t, fmt.Sprintf("/dev/fd/%d", file.Fd()))
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if data, err := io.ReadAll(read); err != nil || string(data) != "new" {
		t.Errorf("the pipe got %q (%v), want new", data, err)
	}
	if data, err := io.ReadAll(file); err != nil || string(data) != "new" {
		t.Errorf("the open file without a name got %q (%v), want new", data, err)
	}
	if got := names(t, "."); !slices.Equal(got, []string{"fifo", "null", "to fifo"}) {
		t.Errorf("the folder has %q, want the pipe and the links", got)
	}
	for path, mode := range map[string]os.FileMode{"fifo": os.ModeNamedPipe, "/dev/null": os.ModeDevice} {
		if info, err := os.Lstat(path); err != nil || info.Mode()&mode == 0 {
			t.Errorf("%s is something else now (%v)", path, err)
		}
	}
}

func TestNamesMayBeAsLongAsTheSystemAllows(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, strings.Repeat("x", 255))
	holds(t, strings.Repeat("x", 255), 0o644)
}

// Check finds what Write would fail on, and both leave nothing behind.
func TestWhatCannotBeWrittenIsFoundBeforehand(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.WriteFile("file", []byte("old"), 0o644), os.MkdirAll("dir/closed", 0o755),
		os.Symlink("none/x", "to nowhere")); err != nil {
		t.Fatal(err)
	}
	before := append(names(t, "."), names(t, "dir")...)
	for _, c := range []struct {
		path, want string
		check      func(string, ...string) error
	}{
		{"dir", "is a directory", files.Check},
		{"new/", "name of a folder", files.Check},
		{"", "name of a folder", files.Check},
		{"none/x.st", "there is no folder none/", files.Check},
		{"to nowhere", "there is no folder ", files.Check},
		{"file/x.st", "not a directory", files.Check},
		{strings.Repeat("x", 256), "file name too long", files.Check},
		{"/proc/x.st", "/proc/x.st", files.Check},
		{"/dev/fd/999", "no such file", files.Check},
		{"new/", "name of a folder", files.CheckWithFolder},
		{"file/new/x.st", "not a directory", files.CheckWithFolder},
		{"/proc/new/x.st", "no such file", files.CheckWithFolder},
		{"new/" + strings.Repeat("x", 256) + "/x.st", "file name too long", files.CheckWithFolder},
		{"new/" + strings.Repeat("x", 256), "file name too long", files.CheckWithFolder},
	} {
		for what, err := range map[string]error{
			"Check": c.check(c.path), "Write": files.WriteBytes(c.path, nil),
		} {
			if err == nil || what == "Check" && !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), fmt.Sprintf("write %q", c.path)) {
				t.Errorf("%s of %.20q: error is %v, want one with %q", what, c.path, err, c.want)
			}
		}
	}
	if err := files.CheckWithFolder("new/folder/x.st"); err != nil {
		t.Errorf("in a folder to be made: error %v", err)
	}
	if after := append(names(t, "."), names(t, "dir")...); !slices.Equal(after, before) {
		t.Errorf("the folders have %q, want %q as before", after, before)
	}
}
