//go:build !cgo || !(amd64 || arm64)

package kernels

// nativeSets returns nothing: there are no C kernels for this system.
func nativeSets(DType) []set { return nil }
