package kernels

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve is Reserve's room, with a function that gives it back.
func reserve(n int) (room []float32, unmap func()) {
	b, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil
	}
	adviseHuge(b)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n), func() { unix.Munmap(b) }
}

// adviseHuge asks for large pages; a kernel that says no gives small ones.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
