package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ptune/internal/batch"
	"ptune/internal/report"
)

// wavy is an objective whose gradient differs from row to row, so that a run that resumes at the
// wrong row has other values.
type wavy struct{}

func (wavy) LossGrad(x []float32, f *batch.Forest, grad []float32) ([]float32, error) {
	nll := make([]float32, len(f.Targets))
	for t, target := range f.Targets {
		at := float32(f.IDs[target.Row]%5) / 3
		for i, v := range x {
			d := v - at - float32(i%7)/10
			nll[t] += d * d
			grad[i] += 2 * d
		}
	}
	return nll, nil
}

func stateJob(optimizer, reparametrise string, tell report.Func) Job {
	c := config()
	c.Steps, c.EvalEvery, c.Patience, c.Warmup, c.VirtualTokens, c.Seed = 13, 4, 2, 0.2, 2, 5
	c.Optimizer.Name, c.Reparametrise, c.Width = optimizer, reparametrise, 3
	c.Order = func(epoch int) []int { return []int{epoch % 10, 3, 1, 9, 2, 8, 4, 6, 7, 5} }
	start := []float32{3, -2, 0.5, 1, -1, 4}
	if optimizer == "sgd" {
		c.Patience = 3 // its loss only rises, so the run stops early
	}
	return Job{Config: c, Values: start, Examples: examples(10), Tell: tell,
		Evaluate: func(_ context.Context, x []float32) ([]report.Eval, error) {
			loss := 0.0
			for i, v := range x {
				if optimizer == "sgd" {
					v -= start[i]
				}
				loss += float64(v * v)
			}
			return []report.Eval{{Set: "valid", Loss: report.Number(loss)}}, nil
		}}
}

func TestAResumedRunEqualsAnUninterruptedOne(t *testing.T) {
	for _, optimizer := range Optimizers() {
		for _, reparametrise := range Reparametrisations() {
			straight := &events{}
			want, err := Run(context.Background(), &wavy{}, stateJob(optimizer, reparametrise,
				straight.tell))
			if err != nil {
				t.Fatal(err)
			}
			stop := StopSteps
			if optimizer == "sgd" {
				stop = StopPatience
			}
			if want.StopReason != stop {
				t.Fatalf("%s stopped because of %s, want %s", optimizer, want.StopReason, stop)
			}
			for split := range want.Steps + 1 {
				path := filepath.Join(t.TempDir(), "state")
				ctx, cancel := context.WithCancel(context.Background())
				job := stateJob(optimizer, reparametrise, func(e report.Event) {
					if s, ok := e.(report.Step); ok && s.Step == split {
						cancel()
					}
				})
				job.Save = func(s *State) error { return s.Save(path) }
				if split == 0 {
					cancel()
				}
				Run(ctx, &wavy{}, job)
				cancel()
				e := &events{}
				job = stateJob(optimizer, reparametrise, e.tell)
				if job.From, _, err = LoadState(path); err != nil {
					t.Fatal(err)
				}
				got, err := Run(context.Background(), &wavy{}, job)
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("%s, reparametrise %s, from step %d", optimizer, reparametrise,
					split)
				if got.Steps != want.Steps || got.BestStep != want.BestStep ||
					got.StopReason != want.StopReason ||
					got.Loss != want.Loss || !slices.Equal(got.Best, want.Best) {
					t.Fatalf("%s: %+v, want %+v", what, got, want)
				}
				for i := range e.steps {
					g, w := e.steps[i], straight.steps[len(straight.steps)-len(e.steps)+i]
					if g.Seconds = w.Seconds; fmt.Sprint(g) != fmt.Sprint(w) {
						t.Fatalf("%s: step %+v, want %+v", what, g, w)
					}
				}
			}
		}
	}
}

func TestAResumedRunThatDivergesKeepsTheLastGoodPrompt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last []float32 // before step 5
	job := Job{Config: config(), Values: []float32{3, -2}, Examples: examples(10), Tell: func(e report.Event) {
		if s, ok := e.(report.Step); ok && s.Step == 5 {
			cancel()
		}
	}}
	job.EvalEvery = 1000
	job.Save = func(s *State) error {
		last = slices.Clone(s.good)
		return s.Save(path)
	}
	if _, err := Run(ctx, &bowl{}, job); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	var err error
	if job.From, _, err = LoadState(path); err != nil {
		t.Fatal(err)
	}
	got, err := Run(context.Background(), &bowl{spoil: 1}, job)
	if !errors.Is(err, ErrDiverged) || got.BestStep != 4 || !slices.Equal(got.Best, last) {
		t.Errorf("%+v (%v), want the prompt %v of step 4", got, err, last)
	}
}

func TestTheSecondsOfARunAreThoseOfAllItsAttempts(t *testing.T) {
	var saved *State
	job := stateJob("adamw", "off", func(report.Event) {})
	ctx, stop := context.WithCancel(context.Background())
	job.Began = time.Now().Add(-time.Hour)
	job.Tell = func(e report.Event) {
		if step, ok := e.(report.Step); ok && step.Step == 6 {
			stop()
		}
	}
	job.Save = func(s *State) error {
		path := filepath.Join(t.TempDir(), "state")
		err := s.Save(path)
		if err == nil {
			saved, _, err = LoadState(path)
		}
		return err
	}
	if r, err := Run(ctx, &wavy{}, job); err == nil || r.Seconds < 3600 {
		t.Fatalf("the first attempt has %g seconds and the error %v, want at least 3600 and one", r.Seconds, err)
	}
	job.From, job.Began = saved, time.Now().Add(-time.Minute)
	if r, err := Run(context.Background(), &wavy{}, job); err != nil || r.Seconds < 3660 || r.Seconds > 3720 {
		t.Errorf("both attempts have %g seconds and the error %v, want 3660 to 3720", r.Seconds, err)
	}
}

func TestADamagedStateIsFoundAndTheOneBeforeIsLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	job := stateJob("adamw", "off", func(report.Event) {})
	job.Save = func(s *State) error { return s.Save(path) }
	if _, err := Run(context.Background(), &wavy{}, job); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last, damage, err := LoadState(path)
	if err != nil || damage != nil {
		t.Fatal(damage, err)
	}
	check := func(what string) {
		t.Helper()
		s, damage, err := LoadState(path)
		if err != nil || damage == nil || s.Step >= last.Step {
			t.Fatalf("%s: damage %v, error %v", what, damage, err)
		}
	}
	for n := range whole {
		os.WriteFile(path, whole[:n], 0o644)
		check(fmt.Sprintf("cut at byte %d", n))
	}
	for n := range whole {
		broken := slices.Clone(whole)
		broken[n] ^= 4
		os.WriteFile(path, broken, 0o644)
		if s, damage, err := LoadState(path); err != nil ||
			damage == nil && fmt.Sprint(s) != fmt.Sprint(last) {
			t.Fatalf("a changed bit of byte %d was accepted: %v", n, err)
		}
	}
	os.Remove(path)
	check("gone")
	os.WriteFile(before(path), whole[:100], 0o644)
	if _, _, err := LoadState(path); err == nil {
		t.Error("both states are damaged, but there is no error")
	}
	os.Remove(before(path))
	if _, _, err := LoadState(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a state: error is %v", err)
	}
}

func TestAStateOfAnotherJobIsRefused(t *testing.T) {
	var state *State
	job := stateJob("adamw", "off", func(report.Event) {})
	job.Save = func(s *State) error { state = s; return nil }
	if _, err := Run(context.Background(), &wavy{}, job); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Job){
		"optimizer":       func(j *Job) { j.Optimizer.Name = "adafactor" },
		"values":          func(j *Job) { j.Values = append(j.Values, 1, 2) },
		"parametrisation": func(j *Job) { j.Reparametrise = "mlp" },
	} {
		job := stateJob("adamw", "off", func(report.Event) {})
		job.From = state
		change(&job)
		if _, err := Run(context.Background(), &wavy{}, job); err == nil {
			t.Errorf("a state with another %s was accepted", what)
		}
	}
}

func FuzzAStateIsReadOrRefused(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	job := stateJob("adamw", "mlp", func(report.Event) {})
	job.Save = func(s *State) error { return s.Save(path) }
	if _, err := Run(context.Background(), &wavy{}, job); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("12345678{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		state, _, err := LoadState(path)
		if err != nil {
			return
		}
		// A state that was read can be resumed or is refused. Written again it is the same.
		job := stateJob("adamw", "mlp", func(report.Event) {})
		job.From = state
		Run(context.Background(), &wavy{}, job)
		if err := state.Save(path); err != nil {
			t.Fatal(err)
		}
		if again, damage, err := LoadState(path); err != nil || damage != nil ||
			again.Step != state.Step {
			t.Fatalf("written and read again: state is %+v (damage %v, error %v)", again, damage, err)
		}
	})
}
