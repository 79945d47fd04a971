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

// How often a run is ended before its time; make torture asks for more.
var (
	kills = flag.Int("kills", 30, "how often to end a run, at random times, that goes on each time")
	steps = flag.Int("steps", 3, "in how many steps to end a run by each of the signals")
)

var signals = []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGTRAP}

func TestARunThatIsKilledAgainAndAgainEndsWithTheSameBytes(t *testing.T) {
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

func TestARunThatEachSignalEndsInEachOfItsStepsEndsWithTheSameBytes(t *testing.T) {
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
			t.Errorf("%v ended it in %d steps, want %d", by, n, *steps)
		}
		e.compare()
	}
}

// ended is a run that is ended again and again and goes on, beside one that is left alone.
type ended struct {
	t     *testing.T
	dir   string
	steps int
	took  time.Duration // of the run that is left alone
}

func newEnded(t *testing.T, steps int) *ended {
	e := &ended{t: t, dir: repository(t), steps: steps}
	begin := time.Now()
	e.run(alone, "straight")
	e.took = time.Since(begin)
	return e
}

// alone sends no signal.
func alone(over <-chan struct{}) syscall.Signal {
	<-over
	return 0
}

// end runs it on until a signal that when returns, and is false if it came to its end before.
func (e *ended) end(when func(over <-chan struct{}) syscall.Signal) bool {
	return e.run(when, "ended", "--resume")
}

func (e *ended) run(when func(over <-chan struct{}) syscall.Signal, out string, more ...string) (early bool) {
	cmd := exec.Command("ptune", append([]string{"train", "--config", "configs/sentiment.yaml", "--quiet", "--set", fmt.Sprintf("train.steps=%d", e.steps), "--set", "train.eval_every=1",
		"--set", "train.patience=0", "--set", "data.valid=", "--set", "output.prompt=" + out + "/s.st", "--set", "output.dir=" + out + "/run"}, more...)...)
	cmd.Dir = e.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	sent, over := make(chan syscall.Signal, 1), make(chan struct{})
	go func() {
		by := when(over)
		cmd.Process.Signal(by) // 0 is none
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

// codes are the exit codes of a process that a signal ends; -1 is one that the signal ended itself. Go's programs end with 2 after
// those that ask for a dump.
func codes(by syscall.Signal) []int {
	switch by {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
		return []int{128 + int(by), -1} // -1: before ptune listens for it
	case syscall.SIGKILL:
		return []int{-1}
	}
	return []int{2, -1}
}

func (e *ended) read(name string) string {
	data, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil {
		e.t.Fatal(err)
	}
	return string(data)
}

// done is how many steps the run's events have.
func (e *ended) done() int {
	data, _ := os.ReadFile(filepath.Join(e.dir, "ended/run/events.jsonl"))
	return strings.Count(string(data), `"event":"step"`)
}

// compare lets the run come to its end and wants the bytes and the steps of the one that was left alone.
func (e *ended) compare() {
	e.t.Helper()
	e.end(alone)
	if e.read("ended/s.st") != e.read("straight/s.st") {
		e.t.Error("the prompt is another one than that of a run that nobody ended")
	}
	step := regexp.MustCompile(fmt.Sprintf(`"event":"step","step":(\d+),"of":%d,"epoch":\d+,"loss":[^,]*`, e.steps))
	if got, want := step.FindAllString(e.read("ended/run/events.jsonl"), -1), step.FindAllString(e.read("straight/run/events.jsonl"), -1); !slices.Equal(got, want) || len(want) != e.steps {
		e.t.Errorf("%d steps are in its events, want %d, each once", len(got), len(want))
	}
}
