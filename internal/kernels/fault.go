//go:build cgo && linux

package kernels

/*
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *message;

static void bus_error(int signal) {
  (void)signal;
  if (write(2, message, strlen(message)) < 0) _exit(2);
  _exit(1);
}

static void exit_on_bus_error(char *m) {
  message = m;
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_handler = bus_error;
  a.sa_flags = SA_ONSTACK;
  sigaction(SIGBUS, &a, NULL);
}
*/
import "C"

// ExitOnBusError has the process end with code 1 and that message where it reads a part of a mapped file that is gone, in Go or in C:
// the kernel says so by SIGBUS, which nothing can go on from.
func ExitOnBusError(message string) {
	C.exit_on_bus_error(C.CString(message)) // kept as long as the process
}
