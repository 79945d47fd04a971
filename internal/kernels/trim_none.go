//go:build !cgo

package kernels

import "runtime/debug"

// FreeMemory gives the system what Go has collected.
func FreeMemory() { debug.FreeOSMemory() }

// OneArena has nothing to do without C.
func OneArena() {}
