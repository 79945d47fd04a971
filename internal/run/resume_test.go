package run

import (
	"strings"
	"testing"

	"ptune/internal/config"
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
}

func TestASweepWarnsOfAStuckRun(t *testing.T) {
	s := &Sweep{pending: []*SweepRun{{Settings: map[string]string{"train.seed": "7"}}}}
	told := 0
	s.jobs(func(report.Event) { told++ })[0].Tell(report.Stuck{Step: 41})
	if told != 1 || len(s.stuck) != 1 || !strings.Contains(s.stuck[0], "7: step 41: the run is stuck") {
		t.Errorf("the event was told %d times, the warnings are %q", told, s.stuck)
	}
}
