//go:build cgo

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These variables tell a copy of the test's program which limit to set, and then what to do.
const (
	limitEnv = "PTUNE_TEST_LIMIT" // as ulimit takes it
	workEnv  = "PTUNE_TEST_WORK"
)

// setLimit sets a limit and runs the program again.
func setLimit(limit string) error {
	var option string
	var n uint64
	if _, err := fmt.Sscan(limit, &option, &n); err != nil {
		return err
	}
	const processes = 6 // RLIMIT_NPROC
	resource := map[string]int{
		"-v": syscall.RLIMIT_AS, "-u": processes, "-n": syscall.RLIMIT_NOFILE,
	}[option]
	if option == "-v" {
		n *= 1024
	}
	exe, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Unsetenv(limitEnv),
			syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n}))
	}
	if err == nil {
		err = syscall.Exec(exe, os.Args, os.Environ())
	}
	return err
}

func TestMain(m *testing.M) {
	if limit := os.Getenv(limitEnv); limit != "" {
		fmt.Println(setLimit(limit))
		os.Exit(99)
	}
	switch os.Getenv(workEnv) {
	case "":
		os.Exit(m.Run())
	case "work":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
		os.Exit(3)
	case "memory":
		var kept [][]byte
		for range 1 << 20 {
			kept = append(kept, make([]byte, 64<<20))
		}
		os.Exit(len(kept))
	case "panic":
		ExitOnCrash()
		done := make(chan int)
		go func() { panic("of a test") }()
		<-done
	case "fatal":
		ExitOnCrash()
		debug.SetMaxStack(1 << 20)
		os.Exit(endless(0))
	case "wait":
		fmt.Println("waiting")
		time.Sleep(time.Minute)
	}
}

// endless needs more stack than there is.
func endless(n int) int {
	if n < 0 {
		return 0
	}
	return endless(n+1) + n
}

// Go's own exit code is 2, that of a mistake of the user. The first process of a container ignores
// signals that have no handler.
func TestACrashHasAnExitCodeOfItsOwn(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for work, want := range map[string]string{"panic": "panic: of a test", "fatal": "stack overflow"} {
		for _, first := range []bool{false, true} {
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), workEnv+"="+work)
			if first {
				if os.Getuid() != 0 { // only root may make a namespace everywhere
					continue
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			}
			out, err := cmd.CombinedOutput()
			if first && errors.Is(err, syscall.EPERM) {
				continue // root of a container that may make none
			}
			if code := cmd.ProcessState.ExitCode(); code != 70 || !strings.Contains(string(out), want) {
				t.Errorf("%s, first process %v: %v, want exit code 70 and %q:\n%.500s", work, first, err, want, out)
			}
		}
	}
}

// limited returns the test's own program with a limit, as a user who is not root: root may have any
// number of threads.
func limited(t *testing.T, limit, work string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	if os.Getuid() == 0 {
		dir := t.TempDir()
		data, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(dir, "program")
		if err := os.WriteFile(cmd.Path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		const unused = 54321 // a user without other processes
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unused, Gid: unused}}
	}
	cmd.Env = append(os.Environ(), limitEnv+"="+limit, workEnv+"="+work)
	return cmd
}

func TestALimitThatIsTooLowIsOneErrorLine(t *testing.T) {
	for _, c := range []struct {
		limit, work string
		code        int
		want        string
	}{
		{"-v 60000", "work", 1, "too low: ulimit -v 60000"},
		{"-v 400000", "work", 1, "too low: ulimit -v 400000"},
		{"-v 4000000", "memory", 1, "memory"},
		{"-u 1", "work", 1, "too low: ulimit -u 1"},
		{"-u 3", "work", 1, "too low: ulimit -u 3"},
		{"-n 4", "work", 1, "too low: ulimit -n 4"},
		{"-v 4000000", "work", 3, "err"}, // enough: nothing changes
		{"-n 63", "work", 3, "err"},
		{"-u 900", "work", 3, "err"},
	} {
		cmd := limited(t, c.limit, c.work)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		err := cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		text := stderr.String()
		if code := cmd.ProcessState.ExitCode(); code != c.code || strings.Count(text, "\n") != 1 ||
			!strings.Contains(text, c.want) || c.code == 1 && !strings.HasPrefix(text, "ptune: error: ") ||
			c.code == 3 && out.String() != "out\n" {
			t.Errorf("ulimit %s, %s: exit code %d, stdout %q, want %d and one line with %q:\n%s", c.limit,
				c.work, code, out.String(), c.code, c.want, text)
		}
	}
}

func TestASignalReachesALimitedProgram(t *testing.T) {
	cmd := limited(t, "-v 8000000", "wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil { // it waits
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want %d as of a program that the signal ends", code,
			128+int(syscall.SIGTERM))
	}
}

func TestAvailableMemoryIsWithinTheLimitOfTheAddressSpace(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	const more = 1 << 30
	limit := old
	limit.Cur = uint64(statusMemory("VmSize")) + more
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
		t.Fatal(err)
	}
	got := AvailableMemory()
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	if got > more || got < more/2 {
		t.Errorf("%.0f bytes are available, want those that the limit leaves, about %d", got, more)
	}
}
