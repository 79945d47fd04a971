//go:build cgo

package process

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
static void one_malloc_arena(void) { mallopt(M_ARENA_MAX, 1); }
#else
static void trim(void) {}
static void one_malloc_arena(void) {}
#endif
*/
import "C"
import "runtime/debug"

// FreeMemory returns unused memory to the system: what Go has collected and what C code has freed.
// glibc would keep the latter for the process.
func FreeMemory() {
	debug.FreeOSMemory()
	C.trim()
}

// OneMallocArena makes all threads of C code allocate from one arena. By default glibc creates an
// arena for each thread and grows it page by page, with a system call each time: a third of the
// time that loading a tokenizer takes.
func OneMallocArena() { C.one_malloc_arena() }
