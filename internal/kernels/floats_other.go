//go:build !linux

package kernels

func adviseHuge([]byte) {}

// Reserve is nil: this system is not known to lend what is not used.
func Reserve(int) ([]float32, func()) { return nil, nil }
