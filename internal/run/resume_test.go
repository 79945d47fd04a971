package run

import (
	"strings"
	"testing"

	"ptune/internal/base"
	"ptune/internal/config"
	"ptune/internal/data"
	"ptune/internal/report"
	"ptune/internal/train"
)

// A state written before train.max_decrease existed belongs to a run without it.
func TestAStateOfAnEarlierVersionIsResumedWithWhatThatVersionDid(t *testing.T) {
	dir := t.TempDir()
	state := &train.State{Identity: map[string]string{"train.seed": "3"}}
	if err := state.Save(statePath(dir)); err != nil {
		t.Fatal(err)
	}
	r := &Run{Task: config.Default(), identity: map[string]string{"train.seed": "3", "train.max_decrease": "0"}}
	r.Task.Output.Dir = dir
	if from, warnings, err := r.Resume(); err != nil || from == nil || warnings != nil {
		t.Errorf("Resume returns the state %v, the warnings %q and the error %v", from, warnings, err)
	}
	r.identity["train.max_decrease"] = "1"
	if _, _, err := r.Resume(); err == nil || !strings.Contains(err.Error(), "train.max_decrease was 0, is 1") {
		t.Errorf("with another max_decrease the error is %v", err)
	}
	delete(r.identity, "train.max_decrease")
	state.Identity["train.best"] = train.BestAccuracy
	if err := state.Save(statePath(dir)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Resume(); err == nil || !strings.Contains(err.Error(), "train.best was accuracy, is loss") {
		t.Errorf("with a state of another train.best the error is %v", err)
	}
}

// A sweep's folders have hashes of identities as names. Those of earlier versions must be found again.
func TestTheIdentityOfATaskWithoutAddedKeysIsThatOfEarlierVersions(t *testing.T) {
	b, err := base.Open("ptune:demo", base.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	task, rows := config.Default(), &Rows{Train: &data.Set{}}
	id := identity(task, b, rows)
	for key := range addedKeys {
		if value, ok := id[key]; ok {
			t.Errorf("%s is part of the identity, %q, though the task does not set it", key, value)
		}
	}
	if id["data.encoding"] != "utf-8" {
		t.Errorf("the encoding is %q, want utf-8, the default of earlier versions", id["data.encoding"])
	}
	task.Train.MaxDecrease, task.Train.Best, task.Data.LabelScores = 1, train.BestAccuracy, data.ScoreMean
	id = identity(task, b, rows)
	for key := range addedKeys {
		if id[key] == "" {
			t.Errorf("%s is not part of the identity of a task that sets it", key)
		}
	}
}

func TestASweepWarnsOfAStuckRun(t *testing.T) {
	s := &Sweep{pending: []*SweepRun{{
		Settings: map[string]string{"train.seed": "7"},
		task:     config.Default(), run: &Run{Rows: &Rows{}},
	}}}
	told := 0
	s.jobs(func(report.Event) { told++ })[0].Tell(report.Stuck{Step: 41})
	if told != 1 || len(s.stuck) != 1 || !strings.Contains(s.stuck[0], "7: step 41: the run is stuck") {
		t.Errorf("the event was told %d times, the warnings are %q", told, s.stuck)
	}
}
