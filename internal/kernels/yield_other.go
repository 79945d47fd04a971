//go:build !linux

package kernels

import "runtime"

func yield() { runtime.Gosched() }
