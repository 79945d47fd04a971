package kernels

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reserve is room for n values that takes no memory until it is touched, page by page, with a function that gives it back; nil where the
// system does not lend so much.
func Reserve(n int) (room []float32, release func()) {
	b, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil
	}
	adviseHuge(b)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n), func() { unix.Munmap(b) }
}

// adviseHuge asks for large pages; a kernel that says no gives small ones.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
