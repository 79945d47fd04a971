package kernels

import "golang.org/x/sys/unix"

// yield gives this thread's CPU to another thread that waits for one. It is a raw system call, because
// Go's scheduler would take the processor from a thread in an ordinary one.
func yield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
