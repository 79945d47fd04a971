package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Every command that reads rows, here of a pipe without any, answers SIGINT while it waits for them.
func TestASignalEndsTheReadingOfRows(t *testing.T) {
	dir := repository(t)
	shell(t, dir, "ptune train configs/stars.yaml --set train.steps=1 --set data.valid= -o s.st --quiet")
	fifo := filepath.Join(dir, "rows.jsonl")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const set = " --set data.train=rows.jsonl --set output.prompt=x/s.st --set output.dir=x/run"
	for _, line := range []string{
		"validate configs/stars.yaml" + set,
		"train configs/stars.yaml" + set,
		"data stats configs/stars.yaml" + set,
		"init ptune:demo rows.jsonl -o new.yaml",
		"eval --prompt s.st --data rows.jsonl",
		"classify --prompt s.st rows.jsonl",
		"generate --prompt s.st --rows rows.jsonl",
		"train -", // a task file on standard input
		"classify --prompt s.st",
	} {
		cmd := exec.Command("ptune", strings.Fields(line)...)
		cmd.Dir = dir
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var rows *os.File
		for begin := time.Now(); strings.Contains(line, "rows.jsonl"); time.Sleep(time.Millisecond) {
			// This fails until the command reads the pipe.
			if rows, err = os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				break
			}
			if time.Since(begin) > time.Minute {
				cmd.Process.Kill()
				t.Fatalf("%s: rows.jsonl is not read", line)
			}
		}
		if rows == nil { // it waits for standard input, or will do
			time.Sleep(300 * time.Millisecond)
		}
		begin := time.Now()
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
		took := time.Since(begin)
		in.Close()
		if rows != nil {
			rows.Close()
		}
		text := stderr.String()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || took > 10*time.Second ||
			!strings.HasSuffix(text, "ptune: error: interrupted by SIGINT\n") || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, want 130, after %v: %s%s", line, code, took, stdout.String(), text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new.yaml")); err == nil {
		t.Error("init has written a task file")
	}
}
