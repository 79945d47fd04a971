//go:build cgo

package kernels

// #include "args.h"
import "C"

// nativeSets returns the C kernels with products of that type. Every arm64 CPU has NEON.
func nativeSets(compute DType) []set {
	if compute != F32 {
		return nil
	}
	return []set{nativeSet("neon", &C.ptune_neon)}
}
