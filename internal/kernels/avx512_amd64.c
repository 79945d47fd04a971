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
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define MR 12
#define half_vector(p) ((V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p))))
#define half_float(h) _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)))
// gcc 12 would widen in two halves
#define widen(p) ((U)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))))
#define sum(v) _mm512_reduce_add_ps((__m512)(v))

#include "set.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
