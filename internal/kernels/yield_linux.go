package kernels

import "golang.org/x/sys/unix"

// yield lets another thread have this thread's CPU, if one waits for it. Go's scheduler is not told: it would take the processor.
func yield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
