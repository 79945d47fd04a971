//go:build !linux

package kernels

func adviseHuge([]byte) {}

// reserve is nil: this system is not known to lend what is not used.
func reserve(int) ([]float32, func()) { return nil, nil }
