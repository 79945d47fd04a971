package failure

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestMarksAreFoundThroughWrappedAndJoinedErrors(t *testing.T) {
	cause := fs.ErrNotExist
	for name, err := range map[string]error{
		"marked":  Usage(cause),
		"wrapped": fmt.Errorf("read the task: %w", Usage(cause)),
		"joined":  errors.Join(errors.New("other"), Usage(cause)),
		"hinted":  Hint(Usage(cause), "look again"),
		"inside":  Usage(Hint(cause, "look again")),
	} {
		if !IsUsage(err) || !errors.Is(err, cause) {
			t.Errorf("%s: usage is %v, the cause is found: %v; want both", name, IsUsage(err),
				errors.Is(err, cause))
		}
	}
	if IsUsage(cause) || IsUsage(nil) || IsUsage(Hint(cause, "look again")) {
		t.Error("an error that is not marked counts as a mistake of the user")
	}
	if text := fmt.Errorf("read: %w", Usage(cause)).Error(); text != "read: file does not exist" {
		t.Errorf("a mark changes the text to %q", text)
	}
}

func TestTheOutermostHintIsShown(t *testing.T) {
	err := Hint(errors.New("no base"), "give %s", "--model")
	if got := HintOf(fmt.Errorf("open: %w", err)); got != "give --model" {
		t.Errorf("hint is %q, want give --model", got)
	}
	if got := HintOf(Hint(err, "pull it")); got != "pull it" {
		t.Errorf("hint is %q, want that of the caller, pull it", got)
	}
	if got := HintOf(errors.New("no base")); got != "" {
		t.Errorf("hint of an error without one is %q", got)
	}
}

func TestNoErrorStaysNone(t *testing.T) {
	if Usage(nil) != nil || Hint(nil, "look again") != nil || HintOf(nil) != "" {
		t.Error("nil became an error")
	}
}
