package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ptune/internal/kernels"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"ptune": main}) }

// TestScripts runs the commands as a user would type them: one script for each command, its JSON and its failures.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(c string) (bool, error) {
			if c != "bf16" {
				return false, fmt.Errorf("unknown condition %q", c)
			}
			return len(kernels.Names(kernels.BF16)) > 0, nil
		},
		Setup: func(e *testscript.Env) error {
			root, err := filepath.Abs("../..")
			e.Setenv("ROOT", root)
			return err
		},
	})
}

// exits runs a command and wants that exit code: exits 2 ptune train …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code is %d, want %s", code, args[0])
	}
}

// repository makes a folder that looks like the project's root to the commands its documents show.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"configs", "internal"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shell runs a command line in dir and returns its stdout.
func shell(t *testing.T, dir, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func TestTheExamplesOfEveryCommandAndTheDocsRun(t *testing.T) {
	dir := repository(t)
	var lines []string
	for _, c := range newRoot(streams{}).Commands() {
		if c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
		lines = append(lines, strings.Split(c.Example, "\n")...)
	}
	for _, doc := range []string{"README.md", "docs/models.md"} {
		text, err := os.ReadFile("../../" + doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(string(text), "\n") {
			if l, ok := strings.CutPrefix(l, "$ "); ok && strings.HasPrefix(l, "ptune ") {
				lines = append(lines, l)
			}
		}
	}
	shell(t, dir, "ptune train --config configs/topic.yaml --quiet") // what the others read
	shell(t, dir, "ptune train --config configs/sentiment.yaml --quiet")
	for task, atMost := range map[string]float64{"sentiment": 0.6, "topic": 1} {
		var got struct {
			Accuracy float64
			Baseline struct{ Accuracy float64 }
		}
		out := shell(t, dir, "ptune eval --json --data internal/demo/data/test.jsonl --prompt runs/"+task+".st")
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: accuracy %.4f, %.4f without the prompt", task, got.Accuracy, got.Baseline.Accuracy)
		if got.Accuracy < 0.9 || got.Baseline.Accuracy > atMost {
			t.Errorf("%s: accuracy is %.4f and %.4f without the prompt, want 0.9 and at most %g", task, got.Accuracy, got.Baseline.Accuracy, atMost)
		}
	}
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			shell(t, dir, strings.Replace(l, "ptune train --config configs/sentiment.yaml", "ptune train --config configs/sentiment.yaml --set train.steps=60", 1))
		}
	}
	if len(lines) < 15 {
		t.Errorf("%d command lines were found, want more", len(lines))
	}
}

func TestASignalEndsARunWithItsCodeAndKeepsTheBestSoFar(t *testing.T) {
	for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		dir := repository(t)
		cmd := exec.Command("ptune", "train", "--config", "configs/sentiment.yaml", "--set", "train.steps=100000", "--set", "train.patience=0", "--set", "output.prompt=x/s.st", "--set", "output.dir=x/run")
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		events := filepath.Join(dir, "x/run/events.jsonl")
		for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			if data, _ := os.ReadFile(events); strings.Contains(string(data), `"step":3,`) {
				break
			}
			if time.Since(begin) > time.Minute {
				cmd.Process.Kill()
				t.Fatalf("no step in a minute: %s", stderr.String())
			}
		}
		cmd.Process.Signal(signal)
		err := cmd.Wait()
		if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != code {
			t.Errorf("%v: %v, want exit code %d\n%s", signal, err, code, stderr.String())
		}
		if _, err := os.Stat(filepath.Join(dir, "x/run/interrupted.st")); err != nil {
			t.Errorf("%v: %v", signal, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "x/s.st")); err == nil {
			t.Errorf("%v: an unfinished prompt stands where the finished one belongs", signal)
		}
		if !strings.Contains(stderr.String(), "ptune: error: interrupted by") || !strings.Contains(stderr.String(), "ptune: hint: the best prompt so far") {
			t.Errorf("%v: stderr is %s", signal, stderr.String())
		}
	}
}

func TestEveryTargetThatTheMakefileNamesHasARule(t *testing.T) {
	data, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\n.PHONY:")
	if !ok {
		t.Fatal("the Makefile has no .PHONY")
	}
	names, _, _ := strings.Cut(rest, "\n")
	for _, name := range strings.Fields(names) {
		if !strings.Contains(string(data), "\n"+name+":") {
			t.Errorf("%s has no rule", name)
		}
	}
}
