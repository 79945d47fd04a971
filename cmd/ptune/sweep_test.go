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

const testSweep = `task: configs/sentiment.yaml
grid:
  prompt.tokens: [3, 16]
  train.learning_rate: [0.03, 0.1, 0.9]
  prompt.init: [text, vocab]
halving: 2
rungs: 2
output: OUT
`

// sweepIn runs the sweep in dir, killed after a while if that is not 0, and returns its results.
func sweepIn(t *testing.T, dir, out string, kill time.Duration, more ...string) (results struct {
	Best string
	Runs []run.SweepRun
}, killed bool) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, out+".yaml"), []byte(strings.Replace(testSweep, "OUT", out, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ptune", append([]string{"sweep", out + ".yaml", "--quiet", "--json", "--set", "train.steps=16", "--set", "train.eval_every=4", "--set", "train.batch_size=4"}, more...)...)
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

func TestASweepsPromptsAreThoseOfTheirRunsAlone(t *testing.T) {
	dir := repository(t)
	r, _ := sweepIn(t, dir, "x", 0, "--set", "train.batch_size=12")
	stops := map[string]int{}
	for _, one := range r.Runs {
		stops[one.Stop]++
	}
	if len(r.Runs) != 12 || stops["halved"] != 9 || stops["steps"] != 3 {
		t.Fatalf("12 runs should be cut to 6 and to 3, they ended by %v", stops)
	}
	for i, one := range r.Runs {
		if one.Stop == "halved" {
			continue
		}
		args := []string{"train", "--config", "configs/sentiment.yaml", "--quiet", "--set", "train.steps=16", "--set", "train.eval_every=4", "--set", "train.batch_size=12",
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
			apart, largest = max(apart, math.Abs(float64(v-got.Values[k]))), max(largest, math.Abs(float64(v)))
		}
		// A batch has more than 16 rows to predict: products of fewer are summed in another order, and the sweep's have more. What still
		// differs is the order in which gradients of shared keys are summed.
		if apart > 1e-4*largest || got.Meta.Training.BestStep != want.Meta.Training.BestStep {
			t.Errorf("run %d (%v): its prompt is %g apart from that of the run alone, whose largest value is %g", i, one.Settings, apart, largest)
		}
		t.Logf("run %d (%v): %g apart", i, one.Settings, apart/largest)
	}
}

func TestASweepThatIsKilledGoesOnToTheSameResults(t *testing.T) {
	dir := repository(t)
	want, _ := sweepIn(t, dir, "straight", 0)
	kills := 0
	for ; kills < 12; kills++ {
		if _, killed := sweepIn(t, dir, "killed", time.Duration(300+70*kills)*time.Millisecond); !killed {
			break
		}
	}
	got, _ := sweepIn(t, dir, "killed", 0)
	t.Logf("killed %d times", kills)
	for i, w := range want.Runs {
		g := got.Runs[i]
		// Runs whose states were kept a step apart go on in smaller passes until they are together again: other sums of rounding.
		if math.Abs(float64(g.Loss-w.Loss)) > 1e-4*float64(w.Loss) || g.Steps != w.Steps || g.BestStep != w.BestStep || g.Stop != w.Stop {
			t.Errorf("run %d ends at step %d (%s), best %d with loss %g; want step %d (%s), best %d with %g", i, g.Steps, g.Stop, g.BestStep, g.Loss, w.Steps, w.Stop, w.BestStep, w.Loss)
		}
	}
	if got.Best == "" || filepath.Base(got.Best) != "best.st" {
		t.Errorf("the best is %q", got.Best)
	}
}
