// The kernels for AVX-512 (F, BW, DQ, VL).

#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")
#endif
#include "transpose512.h"

#define KERNEL_SET ptune_avx512
#define VL 16
#define COUNT 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define MR 12
#define half_vector(p) ((V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p))))
#define half_float(h) _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)))
// gcc 12 would widen in two halves
#define widen(p) ((U)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))))
#define sum(v) _mm512_reduce_add_ps((__m512)(v))

#include "vector.h"

// out[c] = column c of VL rows, which lie ld bytes apart
INLINE void read_columns(const uint8_t *p, long ld, V out[VL]) {
  __m512 columns[VL];
  columns512(p, ld, columns);
#pragma GCC unroll 16
  for (int c = 0; c < VL; c++) out[c] = (V)columns[c];
}

#include "set.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
