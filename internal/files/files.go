// Package files writes files whole or not at all, and finds out beforehand whether it can.
package files

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Write creates or replaces the file at path with the output of write. It writes a temporary file
// in the same folder, syncs it, renames it and syncs the folder. After an error the old file is
// unchanged.
//
// Symbolic links are followed, also to a file that does not exist yet. A file that is replaced
// keeps its mode; a new one gets 0666 less the umask. Devices, pipes and the open files in
// /dev/fd are written to directly. A file with several hard links is overwritten in place, once
// the temporary file is complete, so that all its names have the new content.
func Write(path string, write func(io.Writer) error) error {
	t, err := find(path)
	switch {
	case err != nil:
	case t.direct:
		err = t.writeDirectly(write)
	default:
		err = t.replace(write)
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// Check returns the error with which Write would fail on the path before it has written anything, or
// one if the file is among those that are read. It leaves nothing behind.
func Check(path string, read ...string) error {
	if path == "-" {
		return errors.New("write \"-\": the result of a command goes to standard output by itself; " +
			"give the name of a file (./- for a file of this name)")
	}
	if err := distinct(path, read); err != nil {
		return err
	}
	t, err := find(path)
	if err == nil && t.info != nil && (t.direct || t.links() > 1) {
		const writable = 2 // W_OK
		err = syscall.Access(t.path, writable)
	}
	if err == nil && !t.direct {
		err = t.tryTemporary()
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// distinct returns an error if the file to write is one of the inputs, also through a link.
func distinct(path string, inputs []string) error {
	to, err := os.Stat(path)
	if err != nil {
		return nil // it does not exist yet
	}
	for _, input := range inputs {
		if from, err := os.Stat(input); err == nil && from.Mode().IsRegular() && os.SameFile(from, to) {
			return fmt.Errorf("write %q: the file is also read, as %q; give another name", path, input)
		}
	}
	return nil
}

// CheckWithFolder is Check for a path whose missing folders are made before the file is written. It
// makes them and removes them again.
func CheckWithFolder(path string, read ...string) error {
	var missing []string
	dir := filepath.Dir(path)
	for ; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return fmt.Errorf("write %q: %w", path, cause(err))
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil {
			return fmt.Errorf("write %q: %w", path, cause(err))
		}
		defer os.Remove(missing[i])
	}
	return Check(path, read...)
}

// Direct reports whether Write writes to the file at path directly: whether it is a device, a pipe or an open
// file such as /dev/stdout.
func Direct(path string) bool {
	t, err := find(path)
	return err == nil && t.direct
}

// target is where the content of a path goes.
type target struct {
	path   string      // after all symbolic links
	info   os.FileInfo // nil: it does not exist yet
	direct bool        // write to it: it is no regular file, or an open one
}

// find follows the symbolic links of a path.
func find(path string) (target, error) {
	if path == "" || strings.HasSuffix(path, string(filepath.Separator)) {
		return target{}, errors.New("this is the name of a folder, want that of a file")
	}
	const mostLinks = 40 // as Linux
	for range mostLinks {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return target{path: path}, nil
		case err != nil:
			return target{}, cause(err)
		case info.IsDir():
			return target{}, syscall.EISDIR
		case info.Mode()&fs.ModeSymlink == 0:
			return target{path, info, !info.Mode().IsRegular()}, nil
		}
		dir, err := filepath.EvalSymlinks(folder(path))
		if err != nil {
			return target{}, cause(err)
		}
		if strings.HasPrefix(dir, "/proc/") || strings.HasPrefix(dir, "/dev/fd") {
			info, err := os.Stat(path) // an open file, which may have no name
			return target{path, info, true}, cause(err)
		}
		link, err := os.Readlink(path)
		if err != nil {
			return target{}, cause(err)
		}
		if path = link; !filepath.IsAbs(link) {
			path = filepath.Join(dir, link)
		}
	}
	return target{}, syscall.ELOOP
}

// cause returns an error of the system without its own mention of the path.
func cause(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// folder returns a path's folder, with a separator at its end. Unlike filepath.Dir it leaves "..",
// which is not the folder above if a symbolic link is before it.
func folder(path string) string {
	dir, _ := filepath.Split(path)
	return cmp.Or(dir, "./")
}

// links returns the number of names of a file that exists.
func (t target) links() uint64 {
	if s, ok := t.info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink)
	}
	return 1
}

// temporary creates a file in the target's folder. Its name is short, because the target's may be
// as long as names can be.
func (t target) temporary() (*os.File, error) {
	dir := folder(t.path)
	for {
		name := fmt.Sprintf("%s.ptune-%08x.tmp", dir, rand.Uint32())
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case errors.Is(err, fs.ErrNotExist):
			if _, missing := os.Stat(dir); missing != nil {
				return nil, fmt.Errorf("there is no folder %s", dir)
			}
		}
		return f, cause(err)
	}
}

// tryTemporary creates a temporary file and removes it.
func (t target) tryTemporary() error {
	f, err := t.temporary()
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// writeDirectly writes to a file that cannot be replaced.
func (t target) writeDirectly(write func(io.Writer) error) error {
	flags := os.O_WRONLY
	if t.info.Mode().IsRegular() {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(t.path, flags, 0)
	if err != nil {
		return cause(err)
	}
	return errors.Join(write(f), f.Close())
}

// replace writes a temporary file and gives it the target's name.
func (t target) replace(write func(io.Writer) error) error {
	f, err := t.temporary()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not if it was renamed
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if t.info != nil {
		if s, ok := t.info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Getuid() {
			f.Chown(int(s.Uid), int(s.Gid)) // only root can; others own what they write
		}
		if err := f.Chmod(t.info.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if t.info != nil && t.links() > 1 {
		return t.overwrite(f)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), t.path); err != nil {
		return err
	}
	d, err := os.Open(folder(t.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// overwrite copies a complete temporary file over the target.
func (t target) overwrite(f *os.File) error {
	to, err := os.OpenFile(t.path, os.O_WRONLY, 0)
	if err != nil {
		return cause(err)
	}
	defer to.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(to, f)
	if err != nil {
		return err
	}
	return errors.Join(to.Truncate(n), to.Sync())
}

// WriteBytes writes data to the file at path, as Write does.
func WriteBytes(path string, data []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteJSON writes a value as indented JSON to the file at path, as Write does.
func WriteJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return WriteBytes(path, append(data, '\n'))
}

// Copy copies a file, as Write does.
func Copy(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer f.Close()
	return Write(to, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}
