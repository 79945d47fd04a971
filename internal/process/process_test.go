package process

import (
	"runtime"
	"testing"
)

func TestSpareProcessorLeavesOneProcessorIdleAndKeepsTheNumberOfCPUs(t *testing.T) {
	before := runtime.GOMAXPROCS(1) // as a quota of one CPU does
	defer func() {
		runtime.GOMAXPROCS(before)
		spare.Store(0)
	}()
	const cpus = 1
	for range 2 { // the second call changes nothing
		SpareProcessor(cpus)
		if got := runtime.GOMAXPROCS(0); got != cpus+1 {
			t.Errorf("%d processors for %d threads, want %d", got, cpus, cpus+1)
		}
		if got := CPUs(); got != cpus {
			t.Errorf("%d CPUs once a processor is spare, want %d", got, cpus)
		}
	}
}

func TestSpareProcessorChangesNothingForMoreThreadsThanCPUs(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	SpareProcessor(CPUs() + 1)
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d processors, want %d as before", got, before)
	}
}
