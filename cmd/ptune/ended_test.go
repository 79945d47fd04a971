package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How often a run is ended early. make torture uses larger numbers.
var (
	kills = flag.Int("kills", 30, "how often to end a run at random times and resume it")
	steps = flag.Int("steps", 3, "number of steps in which each signal ends a run")
)

var signals = []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP,
	syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGTRAP}

func TestARunKilledAgainAndAgainHasTheSameBytes(t *testing.T) {
	by := signals[:1]
	if *kills > 30 {
		by = signals
	}
	for left, round := *kills, uint64(0); left > 0 && !t.Failed(); round++ {
		rnd := rand.New(rand.NewPCG(1, round))
		e := newEnded(t, 200)
		n := 0
		for n < min(left, 100) && e.end(func(<-chan struct{}) syscall.Signal {
			time.Sleep(time.Duration((0.03 + 0.06*rnd.Float64()) * float64(e.took)))
			return by[rnd.IntN(len(by))]
		}) {
			n++
		}
		e.compare()
		t.Logf("killed %d times", n)
		if left -= n; n == 0 || left < 10 {
			break
		}
	}
}

func TestARunResumedAfterEachSignalHasTheSameBytes(t *testing.T) {
	for _, by := range signals {
		e := newEnded(t, 4*(*steps)+20)
		n := 0
		for n < *steps && e.end(func(over <-chan struct{}) syscall.Signal {
			for before := e.done(); e.done() <= before; time.Sleep(time.Millisecond) {
				select {
				case <-over:
					return 0
				default:
				}
			}
			return by
		}) {
			n++
		}
		if n < *steps {
			t.Errorf("%v ended the run in %d steps, want %d", by, n, *steps)
		}
		e.compare()
	}
}

// ended is a run that is repeatedly ended and resumed, and an uninterrupted run to compare with.
type ended struct {
	t     *testing.T
	dir   string
	steps int
	took  time.Duration // of the uninterrupted run
}

func newEnded(t *testing.T, steps int) *ended {
	e := &ended{t: t, dir: repository(t), steps: steps}
	begin := time.Now()
	e.run(alone, "whole")
	e.took = time.Since(begin)
	return e
}

// alone sends no signal.
func alone(over <-chan struct{}) syscall.Signal {
	<-over
	return 0
}

// end resumes the run and sends it the signal that when returns. end reports whether the signal
// ended the run before it was finished.
func (e *ended) end(when func(over <-chan struct{}) syscall.Signal) bool {
	return e.run(when, "ended", "--resume")
}

func (e *ended) run(when func(over <-chan struct{}) syscall.Signal, out string,
	more ...string) (early bool) {
	args := []string{"train", "--config", "configs/stars.yaml", "--quiet",
		"--set", fmt.Sprintf("train.steps=%d", e.steps), "--set", "train.eval_every=1",
		"--set", "train.patience=0", "--set", "data.valid=",
		"--set", "output.prompt=" + out + "/s.st", "--set", "output.dir=" + out + "/run"}
	cmd := exec.Command("ptune", append(args, more...)...)
	cmd.Dir = e.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	sent, over := make(chan syscall.Signal, 1), make(chan struct{})
	go func() {
		by := when(over)
		cmd.Process.Signal(by) // 0 sends none
		sent <- by
	}()
	err := cmd.Wait()
	close(over)
	by := <-sent
	if err == nil {
		return false
	}
	if code := cmd.ProcessState.ExitCode(); by == 0 || !slices.Contains(codes(by), code) {
		e.t.Fatalf("%v after %v\n%s", err, by, stderr.String())
	}
	return true
}

// codes returns the exit codes that a process may have after a signal. -1 means that the signal
// itself ended the process. After signals that request a stack dump it is that of a crash.
func codes(by syscall.Signal) []int {
	switch by {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
		return []int{128 + int(by), -1} // -1: the signal came before ptune handles it
	case syscall.SIGKILL:
		return []int{-1}
	}
	return []int{70, -1}
}

func (e *ended) read(name string) string {
	data, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil {
		e.t.Fatal(err)
	}
	return string(data)
}

// done returns the number of steps in the events of the run.
func (e *ended) done() int {
	data, _ := os.ReadFile(filepath.Join(e.dir, "ended/run/events.jsonl"))
	return strings.Count(string(data), `"event":"step"`)
}

// compare finishes the run. It fails unless the prompt and the steps equal those of the
// uninterrupted run.
func (e *ended) compare() {
	e.t.Helper()
	e.end(alone)
	if e.read("ended/s.st") != e.read("whole/s.st") {
		e.t.Error("the prompt differs from that of an uninterrupted run")
	}
	step := regexp.MustCompile(fmt.Sprintf(
		`"event":"step","step":(\d+),"of":%d,"epoch":\d+,"loss":[^,]*`, e.steps))
	got := step.FindAllString(e.read("ended/run/events.jsonl"), -1)
	want := step.FindAllString(e.read("whole/run/events.jsonl"), -1)
	if !slices.Equal(got, want) || len(want) != e.steps {
		e.t.Errorf("got %d steps in the events, want %d, each once", len(got), len(want))
	}
}
