//go:build cgo

package kernels

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"
import "runtime/debug"

// FreeMemory gives the system what Go has collected and C code has freed: glibc alone keeps it for the process.
func FreeMemory() {
	debug.FreeOSMemory()
	C.trim()
}
