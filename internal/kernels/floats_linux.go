package kernels

import "golang.org/x/sys/unix"

// adviseHuge asks for large pages; a kernel that says no gives small ones.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
