//go:build cgo

package kernels

// nativeSets are the C kernels for products of that type: NEON is on every arm64 CPU.
func nativeSets(compute DType) []set {
	if compute != F32 {
		return nil
	}
	return []set{nativeSet("neon", 0, 12, 4)}
}
