package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ptune/internal/prompt"
	"ptune/internal/train"
)

// limited runs ptune with a limit on the size of each file, in blocks of 512 bytes. A write beyond
// the limit fails, as it does on a full disk. limited returns stderr and the exit code.
func limited(t *testing.T, blocks int, dir string, args ...string) (stderr string, code int) {
	t.Helper()
	script := fmt.Sprintf(`ulimit -f %d && exec ptune "$@"`, blocks)
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stderr = &text
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// fourSteps makes a folder with a task of four steps and runs it once, with seed 1. It also returns
// the arguments of a run with a given seed.
func fourSteps(t *testing.T) (dir string, args func(seed int) []string) {
	t.Helper()
	dir = t.TempDir()
	args = func(seed int) []string {
		return []string{"train", "task.yaml", "--force", "--quiet",
			"--set", fmt.Sprintf("train.seed=%d", seed)}
	}
	for name, text := range map[string]string{
		"rows.jsonl": `{"text": "the room was clean", "label": "good"}` + "\n" +
			`{"text": "the soup was cold", "label": "bad"}` + "\n",
		"task.yaml": `{model: "ptune:demo", prompt: {tokens: 16, init: vocab},
  data: {train: rows.jsonl, valid: rows.jsonl,
    input: "{text}", target: " {label}", labels: [good, bad]},
  train: {steps: 4, batch_size: 2, eval_every: 2},
  output: {prompt: x/p.st, dir: x/run, tensorboard: true}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, code := limited(t, 1<<20, dir, args(1)...); code != 0 {
		t.Fatal(text)
	}
	return dir, args
}

// nothingLost fails if the saved state is damaged or a temporary file is left.
func nothingLost(t *testing.T, what, dir string) {
	t.Helper()
	_, _, err := train.LoadState(filepath.Join(dir, "x/run/state.safetensors"))
	if err != nil && !os.IsNotExist(err) {
		t.Errorf("%s: the state cannot be read: %v", what, err)
	}
	for _, pattern := range []string{"x/*.tmp*", "x/run/*.tmp*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("%s: %s is left", what, strings.Join(left, ", "))
		}
	}
}

// The folder has the prompt and the states of a run with seed 1. A run with seed 2 is repeated with
// a growing limit on file sizes until it succeeds. A failed run leaves a complete prompt.
func TestAFailedWriteKeepsTheOldFilesAndIsNamed(t *testing.T) {
	dir, args := fourSteps(t)
	old, err := os.ReadFile(filepath.Join(dir, "x/p.st"))
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`ptune: error: .*x/(p\.st|run/[\w.]+).*: file too large`)
	failed, done := 0, 0
	for blocks := 0; done < 3; blocks += 1 + blocks/16 { // small steps where the files are small
		text, code := limited(t, blocks, dir, args(2)...)
		kept, err := os.ReadFile(filepath.Join(dir, "x/p.st"))
		if err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		if code == 0 {
			if bytes.Equal(kept, old) {
				t.Errorf("%d blocks: exit code 0, but the prompt is the old one", blocks)
			}
			done++
			continue
		}
		failed++
		if code != 1 || !says.MatchString(text) {
			t.Errorf(
				"%d blocks: exit code %d, want 1 and an error with the file and the cause:\n%s", blocks,
				code, text)
		}
		if !bytes.Equal(kept, old) {
			if _, err := prompt.Load(filepath.Join(dir, "x/p.st")); err != nil {
				t.Errorf("%d blocks: the prompt is neither the old one nor complete: %v", blocks, err)
			}
			old = kept
		}
		nothingLost(t, fmt.Sprintf("%d blocks", blocks), dir)
		if blocks > 4000 {
			t.Fatal("the run fails even with 4000 blocks")
		}
	}
	if failed < 3 {
		t.Errorf("%d runs failed, want at least 3", failed)
	}
	t.Logf("the run failed at %d limits", failed)
}
