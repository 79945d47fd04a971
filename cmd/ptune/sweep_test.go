package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ptune/internal/prompt"
	"ptune/internal/run"
)

// testTask is a task whose loss stays smooth at the sweep's highest learning rate.
const testTask = `model: ptune:demo
prompt: {tokens: 16, init: text, text: "Classify the sentiment of this review:"}
data:
  train: internal/demo/data/train.jsonl
  valid: internal/demo/data/valid.jsonl
  input: "{text}\nAnswer:"
  target: " {sentiment}"
  labels: [negative, positive]
output: {prompt: s.st}
`

const testSweep = `task: task.yaml
grid:
  prompt.tokens: [3, 16]
  train.learning_rate: [0.03, 0.1, 0.9]
  prompt.init: [text, vocab]
halving: 2
rungs: 2
output: OUT
`

// sweepIn runs the sweep in dir and returns its results. It kills the sweep after the time kill,
// unless that is 0, and reports whether it was killed.
func sweepIn(t *testing.T, dir, out string, kill time.Duration, more ...string) (results struct {
	Best string
	Runs []run.SweepRun
}, killed bool) {
	t.Helper()
	text := strings.Replace(testSweep, "OUT", out, 1)
	if err := os.WriteFile(filepath.Join(dir, out+".yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "task.yaml"), []byte(testTask), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"sweep", out + ".yaml", "--quiet", "--json", "--set", "train.steps=16",
		"--set", "train.eval_every=4", "--set", "train.batch_size=4"}
	cmd := exec.Command("ptune", append(args, more...)...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if kill > 0 {
		time.AfterFunc(kill, func() {
			if cmd.Process != nil {
				cmd.Process.Kill()
			}
		})
	}
	data, err := cmd.Output()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.ExitCode() < 0 {
		return results, true
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(data, &results); err != nil {
		t.Fatal(err)
	}
	return results, false
}

func TestPromptsOfASweepEqualThoseOfSeparateRuns(t *testing.T) {
	dir := repository(t)
	r, _ := sweepIn(t, dir, "x", 0, "--set", "train.batch_size=12")
	stops := map[string]int{}
	for _, one := range r.Runs {
		stops[one.Stop]++
	}
	if len(r.Runs) != 12 || stops["halved"] != 9 || stops["steps"] != 3 {
		t.Fatalf("got %d runs with the stop reasons %v, want 12: 9 halved, 3 at the last step",
			len(r.Runs), stops)
	}
	for i, one := range r.Runs {
		if one.Stop == "halved" {
			continue
		}
		args := []string{"train", "task.yaml", "--force", "--quiet",
			"--set", "train.steps=16", "--set", "train.eval_every=4", "--set", "train.batch_size=12",
			"--set", "output.dir=alone", "--set", "output.prompt=alone/p.st"}
		for key, value := range one.Settings {
			args = append(args, "--set", key+"="+value)
		}
		cmd := exec.Command("ptune", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got, err := prompt.Load(filepath.Join(dir, one.Prompt))
		if err != nil {
			t.Fatal(err)
		}
		want, err := prompt.Load(filepath.Join(dir, "alone/p.st"))
		if err != nil {
			t.Fatal(err)
		}
		apart, largest := 0.0, 0.0
		for k, v := range want.Values {
			apart, largest = max(apart, math.Abs(float64(v-got.Values[k]))),
				max(largest, math.Abs(float64(v)))
		}
		// A batch has more than 16 target rows here and in the sweep, because smaller products are
		// summed in another order. The remaining difference is the order in which the gradients of
		// shared keys are summed.
		if apart > 1e-4*largest || got.Meta.Training.BestStep != want.Meta.Training.BestStep {
			t.Errorf("run %d (%v): the prompt differs by %g from that of a separate run, whose largest "+
				"value is %g", i, one.Settings, apart, largest)
		}
		t.Logf("run %d (%v): relative difference %g", i, one.Settings, apart/largest)
	}
}

func TestAResumedSweepHasTheSameResults(t *testing.T) {
	dir := repository(t)
	want, _ := sweepIn(t, dir, "whole", 0)
	kills := 0
	for ; kills < 12; kills++ {
		if _, killed := sweepIn(t, dir, "killed",
			time.Duration(300+70*kills)*time.Millisecond); !killed {
			break
		}
	}
	got, _ := sweepIn(t, dir, "killed", 0)
	t.Logf("killed %d times", kills)
	for i, w := range want.Runs {
		g := got.Runs[i]
		// Runs whose states are one step apart are resumed in smaller passes until they are at the
		// same step again. Their rounding errors differ.
		if math.Abs(float64(g.Loss-w.Loss)) > 1e-4*float64(w.Loss) || g.Steps != w.Steps ||
			g.BestStep != w.BestStep || g.Stop != w.Stop {
			t.Errorf("run %d ends at step %d (%s), best step %d, loss %g; want step %d (%s), best step "+
				"%d, loss %g", i, g.Steps, g.Stop, g.BestStep, g.Loss, w.Steps, w.Stop, w.BestStep,
				w.Loss)
		}
	}
	if got.Best == "" || filepath.Base(got.Best) != "best.st" {
		t.Errorf("the best prompt is %q, want a file best.st", got.Best)
	}
}
