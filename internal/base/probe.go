package base

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ptune/internal/failure"
	"ptune/internal/gguf"
	"ptune/internal/tokenize"
)

// Limits of the child process that loads a tokenizer for the first time.
const (
	probeTime   = time.Minute      // of CPU time, so that a busy machine does not make a good file fail
	probeWait   = 20 * time.Minute // for a library that waits without using the CPU
	probeMemory = 8 << 30          // of address space
)

// ProbeCommand is the command of this program that runs Probe on a directory. It must exit with
// probeFailed if Probe returns an error.
const ProbeCommand = "load-tokenizer"

const probeFailed = 1

// probeTokenizer loads the tokenizer of a directory, whose file has the SHA-256 sum, in a limited child
// process, unless the same file was loaded before. The tokenizer library ends its process on some
// files that it cannot read, and never returns for some patterns. The result says whether the
// tokenizer is known to load.
func probeTokenizer(dir, sum string) (bool, error) {
	known := knownTokenizer(sum)
	if _, err := os.Stat(known); known != "" && err == nil {
		return true, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, ProbeCommand, dir)
	// Ctrl-C goes to this process alone, which reports how the child ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return false, failure.Usage(fmt.Errorf("read tokenizer of %q: "+
			"the tokenizer library does not load its tokenizer.json within %v", dir, probeWait))
	case errors.As(err, &exit) && usedUp(exit, probeTime):
		return false, failure.Usage(fmt.Errorf("read tokenizer of %q: "+
			"the tokenizer library does not load its tokenizer.json within %v of CPU time", dir, probeTime))
	case errors.As(err, &exit) && exit.ExitCode() == probeFailed:
		return false, nil // the caller gets the same error when it opens the file
	case err != nil:
		return false, failure.Usage(fmt.Errorf("read tokenizer of %q: "+
			"the tokenizer library ends its process on its tokenizer.json (%w): %s",
			dir, err, panicMessage(stderr.String())))
	}
	if known != "" && os.MkdirAll(filepath.Dir(known), 0o755) == nil {
		os.WriteFile(known, nil, 0o644) // if this fails, the next start probes again
	}
	return true, nil
}

// knownTokenizer returns the path of the empty file that marks a tokenizer.json as loaded before, or
// "" if the user has no cache.
func knownTokenizer(sum string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "ptune", "tokenizers", tokenize.Library+"-"+sum)
}

// panicMessage returns a Rust panic's message: the line after the one with its place.
func panicMessage(stderr string) string {
	lines := strings.Split(stderr, "\n")
	for i, line := range lines {
		if strings.Contains(line, "panicked at") && i+1 < len(lines) {
			return fmt.Sprintf("%.200s", strings.TrimSpace(lines[i+1]))
		}
	}
	return fmt.Sprintf("%.200s", strings.TrimSpace(lines[0]))
}

// Probe is the child process's work: it loads the tokenizer of a model and uses it once. It limits
// the memory and the CPU time of its process, which the system kills after probeTime.
func Probe(dir string) error {
	if err := errors.Join(limit(syscall.RLIMIT_AS, probeMemory), limitTime(probeTime)); err != nil {
		return err
	}
	files := os.DirFS(dir)
	if file, err := gguf.Find(dir); err == nil && file != "" {
		c, err := gguf.Open(file, false)
		if err != nil {
			return err
		}
		defer c.Weights.Close()
		files = c.Files
	}
	tok, err := tokenize.OpenFS(dir, files, nil)
	if err != nil {
		return err
	}
	defer tok.Close()
	ids, err := tok.EncodeInput("A text of letters, 123 and größe 日本 🙂\n")
	if err == nil {
		tok.Decode(ids)
	}
	return err
}

// limitTime makes the system kill this process after that much CPU time, in whole seconds.
func limitTime(most time.Duration) error {
	return limit(syscall.RLIMIT_CPU, uint64(most/time.Second))
}

func limit(resource int, most uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most})
}

// usedUp reports whether a process ended because of limitTime.
func usedUp(exit *exec.ExitError, most time.Duration) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && exit.UserTime()+exit.SystemTime() >= most*3/4 // the kernel counts in ticks
}
