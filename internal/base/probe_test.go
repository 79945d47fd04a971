package base

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestALoadingTokenizerIsLimitedInCPUTimeNotInTime(t *testing.T) {
	const spinning = "PTUNE_TEST_SPINNING"
	if os.Getenv(spinning) != "" {
		if err := limitTime(time.Second); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < time.Minute; {
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), spinning+"=1")
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || !usedUp(exit, time.Second) {
		t.Errorf("a process that computes for a minute ends with %v, want its end after a second", err)
	}
	sleeper := exec.Command("sh", "-c", "sleep 1.2; kill -9 $$")
	if err := sleeper.Run(); !errors.As(err, &exit) || usedUp(exit, time.Second) {
		t.Errorf("a process that waits ends with %v, as if it had used up its CPU time", err)
	}
}
