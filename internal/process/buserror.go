//go:build cgo && linux

package process

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

// ExitOnBusError makes a bus error end the process with exit code 1 and the message on stderr.
// Linux sends SIGBUS when the process, in Go or in C, reads a page of a mapped file that was
// truncated after it was mapped. Nothing can continue from there.
func ExitOnBusError(message string) {
	C.exit_on_bus_error(C.CString(message)) // never freed: the handler needs it until the end
}
