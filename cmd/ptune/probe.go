package main

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

	"github.com/spf13/cobra"

	"ptune/internal/tokenize"
)

// Limits of the process that loads a tokenizer for the first time.
const (
	probeTime   = 30 * time.Second
	probeMemory = 8 << 30 // of addresses
)

// probeTokenizer loads the tokenizer of a directory, whose file has that SHA-256, in a process of its own, with limits, unless that has been
// done with the same file: the tokenizer library ends its process for some files that it cannot read, and takes all the time there is for
// some patterns. It returns whether the tokenizer is known to load.
func probeTokenizer(dir, sum string) (bool, error) {
	known := knownTokenizer(sum)
	if _, err := os.Stat(known); known != "" && err == nil {
		return true, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "load-tokenizer", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which says what became of it
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return false, wrong{fmt.Errorf("read tokenizer of %q: the tokenizer library does not load its tokenizer.json within %v", dir, probeTime)}
	case errors.As(err, &exit) && exit.ExitCode() == exitFailed:
		return false, nil // an error like others, of whoever opens it next
	case err != nil:
		return false, wrong{fmt.Errorf("read tokenizer of %q: the tokenizer library ends its process on its tokenizer.json (%w): %s", dir, err, panicked(said.String()))}
	}
	if known != "" && os.MkdirAll(filepath.Dir(known), 0o755) == nil {
		os.WriteFile(known, nil, 0o644) // it is looked at again next time if this fails
	}
	return true, nil
}

// knownTokenizer is the empty file that stands for a tokenizer.json that has been loaded before; empty where there is no cache.
func knownTokenizer(sum string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "ptune", "tokenizers", tokenize.Library+"-"+sum)
}

// panicked is what a Rust panic says of itself: the line behind the place.
func panicked(stderr string) string {
	lines := strings.Split(stderr, "\n")
	for i, line := range lines {
		if strings.Contains(line, "panicked at") && i+1 < len(lines) {
			return fmt.Sprintf("%.200s", strings.TrimSpace(lines[i+1]))
		}
	}
	return fmt.Sprintf("%.200s", strings.TrimSpace(lines[0]))
}

// newLoadTokenizer is the command of that process.
func newLoadTokenizer() *cobra.Command {
	return &cobra.Command{
		Use: "load-tokenizer DIR", Short: "Load a tokenizer and say nothing", Hidden: true, Args: cobra.ExactArgs(1), Example: "  ptune load-tokenizer internal/demo/base",
		RunE: does(func(_ context.Context, args []string) error {
			limit := syscall.Rlimit{Cur: probeMemory, Max: probeMemory}
			if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
				return err
			}
			tok, err := tokenize.Open(args[0], nil)
			if err != nil {
				return err
			}
			defer tok.Close()
			ids, err := tok.EncodeInput("A text of letters, 123 and größe 日本 🙂\n")
			if err == nil {
				tok.Decode(ids)
			}
			return err
		}),
	}
}
