package kernels

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve returns the values of Reserve and a function that frees them.
func reserve(n int) (values []float32, unmap func()) {
	const access = unix.PROT_READ | unix.PROT_WRITE
	b, err := unix.Mmap(-1, 0, 4*n, access, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil
	}
	adviseHuge(b)
	values = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
	return values, func() { unix.Munmap(b) }
}

// adviseHuge asks for large pages. If the system has none, the pages stay small.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
