//go:build cgo

package kernels

// #include "args.h"
import "C"

import "golang.org/x/sys/cpu"

// nativeSets returns the C kernels that this CPU can run with products of that type, the slowest
// first.
func nativeSets(compute DType) []set {
	var sets []set
	x86 := &cpu.X86
	if x86.HasAVX2 && x86.HasFMA && compute == F32 {
		s := nativeSet("avx2", &C.ptune_avx2)
		s.taper = true // measured with this set only
		sets = append(sets, s)
	}
	if !(x86.HasAVX512F && x86.HasAVX512BW && x86.HasAVX512DQ && x86.HasAVX512VL) {
		return sets
	}
	s := nativeSet("avx512", &C.ptune_avx512)
	parts := 3
	if compute == F32 {
		sets = append(sets, s)
	} else {
		parts = 1
		if x86.HasAVX512BF16 {
			bf16 := s
			bf16.setProducts(&C.ptune_bf16, parts)
			sets = append(sets, bf16)
		}
	}
	if x86.HasAMXTile && x86.HasAMXBF16 && C.ptune_amx_allowed() != 0 {
		amx := s
		amx.name = "amx"
		amx.setProducts(&C.ptune_amx, parts)
		sets = append(sets, amx)
	}
	return sets
}
