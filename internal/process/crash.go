//go:build cgo

package process

/*
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void crashed(int signal) {
  (void)signal;
  _exit(70);
}

// Runs before Go's runtime, which passes on to this handler the SIGABRT that it ends a crash with. The
// default action would not end the first process of a container, which Go then ends with exit code 2.
__attribute__((constructor)) static void handle_abort(void) {
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_handler = crashed;
  a.sa_flags = SA_ONSTACK;
  sigaction(SIGABRT, &a, NULL);
}
*/
import "C"
