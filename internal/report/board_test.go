package report

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func TestTensorBoardRecordsHaveItsFormat(t *testing.T) {
	// The record of tensorboard.summary.writer.record_writer.RecordWriter for b"hello".
	if got, want := hex.EncodeToString(record([]byte("hello"))),
		"0500000000000000eab2043e68656c6c6fbb1f1c19"; got != want {
		t.Errorf("record is %s, want %s", got, want)
	}
	var b bytes.Buffer
	tell := TensorBoard(&b, func() time.Time { return time.Unix(1, 5e8) },
		func(err error) { t.Error(err) })
	tell(Eval{Step: 300, Set: "v", Loss: 0.5})
	// wall_time 1.5, file_version; then wall_time, step 300, summary { value { tag "v/loss"
	// simple_value 0.5 } }
	want := string(record([]byte("\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x1a\x0dbrain.Event:2"))) +
		string(record([]byte("\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x10\xac\x02\x2a\x0f\x0a\x0d\x0a\x06v/loss\x15\x00\x00\x00\x3f")))
	if b.String() != want {
		t.Errorf("the file is\n%x, want\n%x", b.String(), want)
	}
}

func TestTheBarIsOneLineThatOtherLinesReplace(t *testing.T) {
	var b bytes.Buffer
	tell := Bar(&b, 100, 0, func() int64 { return 90 << 20 })
	tell(Start{VirtualTokens: 2, Steps: 4})
	for s := range 4 {
		tell(Step{Step: s + 1, Of: 4, Loss: 0.5, Tokens: 100, Seconds: 0.1})
		if s == 1 {
			accuracy := 0.75
			tell(Eval{Step: 2, Set: "valid", Loss: 0.25, Accuracy: &accuracy, MacroF1: &accuracy})
		}
	}
	tell(End{Steps: 4})
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, want the start, the evaluation, the last bar and the end:\n%q",
			len(lines), lines)
	}
	for _, want := range []string{"] 2/4  loss 0.5000", "\r\x1b[Kstep 2  valid: loss 0.2500"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("the line of the evaluation is %q, want %q in it: the bar, removed again",
				lines[1], want)
		}
	}
	for _, want := range []string{"] 4/4  loss 0.5000  valid accuracy 0.750  ", " 0s left  90 MB"} {
		if !strings.Contains(lines[2], want) {
			t.Errorf("the bar is %q, want %q in it", lines[2], want)
		}
	}
	for _, part := range strings.Split(b.String(), "\r\x1b[K")[1:] {
		if line, _, _ := strings.Cut(part, "\n"); len(line) > 100 && strings.HasPrefix(line, "[") {
			t.Errorf("%q is too long for 100 columns", line)
		}
	}
	for _, columns := range []int{0, 10, 60} { // a narrow terminal cuts the line
		b.Reset()
		tell := Bar(&b, columns, 0, func() int64 { return 0 })
		tell(Start{})
		b.Reset()
		tell(Step{Step: 1, Of: 2, Tokens: 1})
		if line := strings.TrimPrefix(b.String(), "\r\x1b[K"); len(line) > columns {
			t.Errorf("%d columns: %q", columns, line)
		}
	}
}

func TestProgressIsShownAndNotRecorded(t *testing.T) {
	var record, text bytes.Buffer
	tell := All(JSONL(&record, func(err error) { t.Error(err) }), Text(&text, 0))
	tell(Progress{What: "valid", Done: 0, Of: 40})
	tell(Progress{What: "valid", Done: 10, Of: 40})
	if record.Len() > 0 {
		t.Errorf("recorded %q, want nothing", record.String())
	}
	if want := "valid: 0 of 40 rows measured\nvalid: 10 of 40 rows measured, 0s left\n"; text.String() != want {
		t.Errorf("shown %q, want %q", text.String(), want)
	}
}

func TestTheTimeLeftCountsTheEvaluationsToCome(t *testing.T) {
	e := evaluations{every: 50}
	if got := e.left(10, 120); got != 0 {
		t.Errorf("%g s left before the first evaluation, want 0: its time is not known", got)
	}
	e.add(Eval{Step: 0, Set: "a", Seconds: 2}, false)
	e.add(Eval{Step: 0, Set: "b", Seconds: 4}, false)
	for step, want := range map[int]float64{1: 18, 50: 18, 51: 12, 100: 12, 101: 6, 120: 6} {
		if got := e.left(step, 120); got != want { // evaluations after steps 50, 100 and 120
			t.Errorf("%g s left after step %d, want %g", got, step, want)
		}
	}
}
