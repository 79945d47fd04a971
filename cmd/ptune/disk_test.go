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

// limited runs a shell's ptune whose files may grow to a number of blocks of 512 bytes and no further: what a full disk does, at a place
// of one's choice.
func limited(t *testing.T, blocks int, dir string, args ...string) (stderr string, code int) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -f %d && exec ptune "$@"`, blocks), "sh"}, args...)...)
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stderr = &text
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// fourSteps makes a folder with a task of four steps that has been run once, and the arguments of a run with another seed.
func fourSteps(t *testing.T) (dir string, args func(seed int) []string) {
	t.Helper()
	dir = t.TempDir()
	args = func(seed int) []string {
		return []string{"train", "--config", "task.yaml", "--quiet", "--set", fmt.Sprintf("train.seed=%d", seed)}
	}
	for name, text := range map[string]string{
		"rows.jsonl": `{"text": "the room was clean", "label": "good"}` + "\n" + `{"text": "the soup was cold", "label": "bad"}` + "\n",
		"task.yaml": `{model: "ptune:demo", prompt: {tokens: 16, init: vocab}, data: {train: rows.jsonl, valid: rows.jsonl, input: "{text}", target: " {label}", labels: [good, bad]},
  train: {steps: 4, batch_size: 2, eval_every: 2}, output: {prompt: x/p.st, dir: x/run, tensorboard: true}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, code := limited(t, 1<<20, dir, args(1)...); code != 0 {
		t.Fatal(text)
	}
	return dir, args
}

// nothingLost: the state that fourSteps left, or one after it, is whole, and no temporary file stays.
func nothingLost(t *testing.T, what, dir string) {
	t.Helper()
	if _, _, err := train.LoadState(filepath.Join(dir, "x/run/state.safetensors")); err != nil && !os.IsNotExist(err) {
		t.Errorf("%s: the state is lost: %v", what, err)
	}
	for _, pattern := range []string{"x/*.tmp*", "x/run/*.tmp*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("%s: %s is left", what, strings.Join(left, ", "))
		}
	}
}

// The old prompt, the state and the state before are of a run of four steps; a second run over them, of another seed, may write ever more.
func TestAWriteThatFailsLosesNothingAndSaysWhere(t *testing.T) {
	dir, args := fourSteps(t)
	old, err := os.ReadFile(filepath.Join(dir, "x/p.st"))
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`ptune: error: .*x/(p\.st|run/[\w.]+).*: file too large`)
	failed, done := 0, 0
	for blocks := 0; done < 3; blocks++ {
		text, code := limited(t, blocks, dir, args(2)...)
		kept, err := os.ReadFile(filepath.Join(dir, "x/p.st"))
		if err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		if code == 0 {
			if bytes.Equal(kept, old) {
				t.Errorf("%d blocks: exit code 0, and the prompt is the old one", blocks)
			}
			done++
			continue
		}
		failed++
		if code != 1 || !says.MatchString(text) {
			t.Errorf("%d blocks: exit code %d, want 1 and an error that names the file and what was wrong:\n%s", blocks, code, text)
		}
		if !bytes.Equal(kept, old) {
			if _, err := prompt.Load(filepath.Join(dir, "x/p.st")); err != nil {
				t.Errorf("%d blocks: the prompt is neither the old one nor whole: %v", blocks, err)
			}
			old = kept
		}
		nothingLost(t, fmt.Sprintf("%d blocks", blocks), dir)
		if blocks > 4000 {
			t.Fatal("it never had room enough")
		}
	}
	if failed < 3 {
		t.Errorf("%d writes failed, want some", failed)
	}
	t.Logf("%d sizes of disk failed", failed)
}
