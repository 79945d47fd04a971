//go:build cgo

package kernels

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
static void one_arena(void) { mallopt(M_ARENA_MAX, 1); }
#else
static void trim(void) {}
static void one_arena(void) {}
#endif
*/
import "C"
import "runtime/debug"

// FreeMemory gives the system what Go has collected and C code has freed: glibc alone keeps it for the process.
func FreeMemory() {
	debug.FreeOSMemory()
	C.trim()
}

// OneArena has C code take its memory from one place, whatever thread it runs on: glibc makes places for more threads as they come and
// enlarges those by a page a time, with a system call each, a third of the time in which a tokenizer loads.
func OneArena() { C.one_arena() }
