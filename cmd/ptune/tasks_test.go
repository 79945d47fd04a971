package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ptune/internal/failure"
	"ptune/internal/run"
)

func TestThePartOfAJobArrayFollowsFromTheScheduler(t *testing.T) {
	for _, c := range []struct {
		options tasksOptions
		env     string // NAME=VALUE, at blanks
		want    shard
		err     string
	}{
		{tasksOptions{}, "", shard{0, 1}, ""},
		{tasksOptions{shard: "3/4"}, "SLURM_ARRAY_TASK_ID=1", shard{3, 4}, ""},
		{tasksOptions{}, "ID=3 MIN=1 MAX=8 COUNT=8", shard{2, 8}, ""},
		{tasksOptions{shards: 9}, "ID=8 MIN=8 MAX=8 COUNT=1", shard{8, 9}, ""}, // only that part again
		{tasksOptions{shards: 9}, "JOB_COMPLETION_INDEX=0", shard{0, 9}, ""},
		{tasksOptions{}, "JOB_COMPLETION_INDEX=3", shard{0, 1}, ""}, // it does not say how many there are
		{tasksOptions{}, "ID=3 MIN=1 MAX=7 COUNT=4", shard{}, "give the number of parts"},
		{tasksOptions{}, "ID=3", shard{}, "give the number of parts"},
		{tasksOptions{}, "ID=x", shard{}, `SLURM_ARRAY_TASK_ID is "x"`},
		{tasksOptions{shards: 3}, "ID=3 MIN=1 MAX=3 COUNT=3", shard{}, "the parts are 0 to 2"},
		{tasksOptions{shards: 3}, "", shard{}, "--shard I/N names the part"},
		{tasksOptions{shards: -1}, "", shard{}, "--shards is -1"},
		{tasksOptions{shard: "4/4"}, "", shard{}, "want I/N"},
		{tasksOptions{shard: "-1/4"}, "", shard{}, "want I/N"},
		{tasksOptions{shard: "1"}, "", shard{}, "want I/N"},
	} {
		env := map[string]string{}
		for _, v := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(v, "=")
			if len(name) < 6 {
				name = "SLURM_ARRAY_TASK_" + name
			}
			env[name] = value
		}
		got, err := c.options.part(func(name string) string { return env[name] })
		text := ""
		if err != nil {
			text = err.Error() + "; " + failure.HintOf(err)
		}
		if got != c.want || (c.err == "") != (err == nil) || !strings.Contains(text, c.err) {
			t.Errorf("%+v with %s: got %v and %q, want %v and %q", c.options, c.env, got, text, c.want, c.err)
		}
	}
}

// SIGUSR1 is what a scheduler sends before the time is up.
func TestASignalEndsManyTasksWithTryAgainAndTheSameCommandContinues(t *testing.T) {
	dir := repository(t)
	var list strings.Builder
	for i := range 2 {
		fmt.Fprintf(&list, "configs/stars.yaml --set train.batch_size=4 --set data.valid= --set train.steps=150 "+
			"--set train.eval_every=1 --set output.prompt=%d/p.st --set output.dir=%[1]d\n", i)
	}
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(list.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	start := func(part string) (*exec.Cmd, *strings.Builder) {
		cmd := exec.Command("ptune", "train", "--tasks", "list", "--shard", part)
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &stderr
	}
	first, stderr := start("0/2")
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "0/state.safetensors")); err == nil {
			break
		}
		if time.Since(begin) > time.Minute {
			first.Process.Kill()
			t.Fatalf("no state in a minute: %s", stderr)
		}
	}
	second, refused := start("0/2") // another process must not write there
	second.Wait()
	if code := second.ProcessState.ExitCode(); code != exitTryAgain ||
		!strings.Contains(refused.String(), "another run writes to 0") {
		t.Errorf("exit code %d while another process writes, want 75\n%s", code, refused)
	}
	first.Process.Signal(syscall.SIGUSR1)
	first.Wait()
	if code := first.ProcessState.ExitCode(); code != exitTryAgain ||
		!strings.Contains(stderr.String(), "error: interrupted by SIGUSR1, ") {
		t.Errorf("exit code %d after SIGUSR1, want 75\n%s", code, stderr)
	}
	third, stderr := start("0/1")
	if err := third.Wait(); err != nil {
		t.Errorf("the same command again: %v\n%s", err, stderr)
	}
	for _, task := range []string{"0", "1"} {
		if _, err := run.ReadResult(filepath.Join(dir, task)); err != nil {
			t.Error(err)
		}
	}
}
