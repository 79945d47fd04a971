package process

import "runtime/debug"

// ExitOnCrash makes a panic, a fatal error of Go's runtime and an abort in C end the process with exit code
// 70, after a trace on stderr. Go's own code for them is 2, that of a mistake of the user. Before it is
// called, and without cgo, they have Go's code or end the process by SIGABRT.
func ExitOnCrash() { debug.SetTraceback("crash") }
