//go:build !linux

package kernels

func adviseHuge([]byte) {}

// reserve returns nil: memory that is not touched may cost something on this system.
func reserve(int) ([]float32, func()) { return nil, nil }
