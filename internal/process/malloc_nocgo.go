//go:build !cgo

package process

import "runtime/debug"

// FreeMemory returns the memory that Go has collected to the system.
func FreeMemory() { debug.FreeOSMemory() }

// OneMallocArena does nothing without C code.
func OneMallocArena() {}
