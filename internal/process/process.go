// Package process is what the program knows about its own process: its memory and how its runtime
// uses it, its CPUs, and what happens on a bus error. Only main and the commands change anything
// here.
package process

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// heapGrowth is the garbage collector's percentage after SmallHeap.
const heapGrowth = 20

// SmallHeap makes the garbage collector run when the heap has grown by a fifth instead of doubling.
// Call it once a base model is open: from then on the heap is a few large buffers without pointers,
// so collecting is cheap, and waiting would double the memory. Opening makes many small objects.
func SmallHeap() { debug.SetGCPercent(heapGrowth) }

// spare is 1 once SpareProcessor has raised GOMAXPROCS, else 0.
var spare atomic.Int32

// CPUs returns the number of CPUs the process may use, within the quota of its control group.
func CPUs() int { return min(runtime.GOMAXPROCS(0)-int(spare.Load()), runtime.NumCPU()) }

// CPUName returns the CPU's name, or "" if the system does not say.
func CPUName() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// SpareProcessor gives Go's scheduler one processor more than there are computing threads. Without
// an idle one the scheduler takes the processor of any thread that is in C for some microseconds
// and wakes another thread to use it, again and again, on the CPUs that compute.
func SpareProcessor(threads int) {
	if threads <= CPUs() && runtime.GOMAXPROCS(0) <= threads {
		runtime.GOMAXPROCS(threads + 1)
		spare.Store(1)
	}
}

// PeakMemory returns the largest resident memory so far, in bytes; 0 if the system does not say.
// Linux reports it as VmHWM. The fallback, getrusage, includes the parent's memory at the time of
// the fork.
func PeakMemory() int64 {
	if n := statusMemory("VmHWM"); n > 0 {
		return n
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss << 10
}

// CurrentMemory returns the resident memory in bytes; 0 if the system does not say.
func CurrentMemory() int64 { return statusMemory("VmRSS") }

// statusMemory returns a line of /proc/self/status in bytes.
func statusMemory(name string) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, name+": %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}

// AvailableMemory returns the bytes that the process can still get: what the system has free or can
// free, within the limits of the control group and of the process's address space. It is infinite if
// the system does not say.
func AvailableMemory() float64 {
	available := math.Inf(1)
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			var kb float64
			if n, _ := fmt.Sscanf(line, "MemAvailable: %g kB", &kb); n == 1 {
				available = kb * 1024
			}
		}
	}
	limits := []string{
		"/sys/fs/cgroup/memory.max",                   // cgroup v2
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", // cgroup v1
	}
	for _, name := range limits {
		if limit, err := os.ReadFile(name); err == nil {
			if n, err := strconv.ParseFloat(strings.TrimSpace(string(limit)), 64); err == nil {
				available = min(available, n)
			}
		}
	}
	var space syscall.Rlimit // Cur is the largest number if there is no limit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &space); err == nil {
		available = min(available, max(0, float64(space.Cur)-float64(statusMemory("VmSize"))))
	}
	return available
}
