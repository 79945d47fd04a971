//go:build !linux

package kernels

import "runtime"

// yield gives this thread's CPU to another goroutine.
func yield() { runtime.Gosched() }
