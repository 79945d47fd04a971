package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"ptune/internal/report"
)

func TestEachEventIsAnObjectOnALineWithItsKind(t *testing.T) {
	var b bytes.Buffer
	tell := report.JSONL(&b, func(err error) { t.Error(err) })
	accuracy := 0.5
	tell(report.Start{Model: "m"})
	tell(report.Step{Step: 3, Loss: report.Number(math.NaN()), GradNorm: 2})
	tell(report.Eval{Set: "valid", Accuracy: &accuracy})
	tell(report.Stuck{Step: 50, GuessLoss: 0.8})
	tell(report.End{StopReason: "steps"})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, want := range []map[string]any{
		{"event": "start", "model": "m"},
		{"event": "step", "step": 3.0, "loss": nil, "grad_norm": 2.0},
		{"event": "eval", "set": "valid", "accuracy": 0.5},
		{"event": "stuck", "step": 50.0, "guess_loss": 0.8},
		{"event": "end", "stop_reason": "steps"},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("line %d: %s is %v, want %v", i+1, k, got[k], v)
			}
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAFailedWriteIsReported(t *testing.T) {
	var failed error
	report.JSONL(full{}, func(err error) { failed = err })(report.End{})
	if failed == nil {
		t.Error("fail was not called")
	}
}

func TestTextHasNoControlCharacters(t *testing.T) {
	var b bytes.Buffer
	tell := report.Text(&b, 0)
	events := []report.Event{report.Start{}, report.Step{}, report.Eval{Best: true},
		report.Stuck{}, report.End{}}
	for _, e := range events {
		tell(e)
	}
	if s := b.String(); strings.Count(s, "\n") != 5 || strings.ContainsAny(s, "\r\x1b") {
		t.Errorf("text is %q, want five plain lines", s)
	}
}

func TestTheProgressOfASweepNamesOnlyWhatIsKnown(t *testing.T) {
	for runs, want := range map[int]string{
		1: "step 1/2  0.50 s/step\nstep 2/2  0.50 s/step  lowest validation loss 0.7000\n",
		3: "step 1/2 of 3 runs  0.50 s/step\nstep 2/2 of 3 runs  0.50 s/step  lowest validation loss 0.7000\n",
	} {
		var out strings.Builder
		tell := report.SweepText(&out, runs, 0)
		tell(report.Step{Step: 1, Of: 2, Seconds: 0.5})
		tell(report.Eval{Loss: 0.7})
		tell(report.Step{Step: 2, Of: 2, Seconds: 0.5})
		if out.String() != want {
			t.Errorf("of %d runs it prints %q, want %q", runs, out.String(), want)
		}
	}
}
