//go:build !cgo || !(amd64 || arm64)

package kernels

// nativeSets is empty where there are no C kernels.
func nativeSets(DType) []set { return nil }
