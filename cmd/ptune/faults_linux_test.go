package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fault makes system calls fail if an argument passes a test.
type fault struct {
	name  string
	calls []uint32
	arg   uint32 // index of the argument
	test  uint16 // unix.BPF_JSET or unix.BPF_JGE
	value uint32
}

// faults are the calls by which a run writes its files. Writes to the terminal are allowed, and so
// are the writes of eight bytes by which Go's runtime wakes itself.
var faults = []fault{
	{"write of more than 8 bytes", []uint32{unix.SYS_WRITE, unix.SYS_PWRITE64}, 2, unix.BPF_JGE, 9},
	{"write of 400 bytes and more", []uint32{unix.SYS_WRITE, unix.SYS_PWRITE64}, 2, unix.BPF_JGE, 400},
	{"write of 4 KB and more", []uint32{unix.SYS_WRITE, unix.SYS_PWRITE64}, 2, unix.BPF_JGE, 4096},
	{"fsync", []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC}, 0, unix.BPF_JGE, 0},
	{"fchmod", []uint32{unix.SYS_FCHMOD}, 0, unix.BPF_JGE, 0},
	{"rename", []uint32{unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}, 0, unix.BPF_JGE, 0},
	{"open to create", []uint32{unix.SYS_OPENAT}, 2, unix.BPF_JSET, unix.O_CREAT},
	{"mkdir", []uint32{unix.SYS_MKDIRAT}, 0, unix.BPF_JGE, 0},
}

// filter returns the fault as a seccomp program: the call fails with errno, others are allowed.
func (f fault) filter(errno uint32) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(test uint16, value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	program := []unix.SockFilter{load(0)} // the call's number; its arguments start at 16
	for i, nr := range f.calls {
		program = append(program, jump(unix.BPF_JEQ, nr, uint8(len(f.calls)-i), 0))
	}
	return append(program,
		unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
		// a file, or the working folder
		load(16), jump(unix.BPF_JGE, 3, 1, 0), jump(unix.BPF_JEQ, unix.AT_FDCWD&0xffffffff, 0, 3),
		load(16+8*f.arg), jump(f.test, f.value, 0, 1),
		unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | errno},
		unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW})
}

// failing is a command for the tests: failing FAULT ERRNO program args... runs a program with the
// fault of that index.
func failing() {
	which, err1 := strconv.Atoi(os.Args[1])
	errno, err2 := strconv.Atoi(os.Args[2])
	path, err3 := exec.LookPath(os.Args[3])
	runtime.LockOSThread()
	program := faults[which].filter(uint32(errno))
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err := errors.Join(err1, err2, err3, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0))
	if err == nil {
		err = unix.Exec(path, os.Args[3:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "failing:", err)
	os.Exit(99)
}

// A run with seed 1 has written its files. A run with seed 2 in the same folder meets a fault.
func TestAFailedSystemCallIsAnErrorAndKeepsTheOldFiles(t *testing.T) {
	done, args := fourSteps(t)
	old, err := os.ReadFile(filepath.Join(done, "x/p.st"))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range faults {
		for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(done)); err != nil {
				t.Fatal(err)
			}
			if f.name == "mkdir" {
				os.RemoveAll(filepath.Join(dir, "x"))
			}
			command := []string{strconv.Itoa(i), strconv.Itoa(int(errno)), "ptune"}
			cmd := exec.Command("failing", append(command, args(2)...)...)
			cmd.Dir = dir
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if exit := (*exec.ExitError)(nil); cmd.Run() != nil && !errors.As(err, &exit) &&
				cmd.ProcessState == nil {
				t.Fatal("the command did not start")
			}
			what, text := fmt.Sprintf("%s: %v", f.name, errno), stderr.String()
			code := cmd.ProcessState.ExitCode()
			want := 1
			if f.name == "mkdir" || f.name == "open to create" {
				want = 2 // found before the first step: the task file names no place to write to
			}
			if code != want || !strings.Contains(text, "ptune: error: ") ||
				!strings.Contains(text, errno.Error()) || !strings.Contains(text, "x") {
				t.Errorf("%s: exit code %d, want %d and an error with the file and the cause:\n%s",
					what, code,
					want, text)
			}
			if f.name == "mkdir" { // the test has removed the old files
				continue
			}
			if kept, err := os.ReadFile(filepath.Join(dir, "x/p.st")); err != nil ||
				!bytes.Equal(kept, old) {
				t.Errorf("%s: the old prompt is gone or changed (%v)", what, err)
			}
			nothingLost(t, what, dir)
		}
	}
}
