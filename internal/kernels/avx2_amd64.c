// The kernels for AVX2 with FMA and F16C.

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#define KERNEL_SET ptune_avx2
#define VL 8
#define COUNT 0, 1, 2, 3, 4, 5, 6, 7
#define MR 6
#define half_vector(p) ((V)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p))))
#define half_float(h) _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)))
// gcc 12 would widen in two halves
#define widen(p) ((U)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))))

static inline float sum8(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#define sum(v) sum8((__m256)(v))

#include "vector.h"

// out[c] = column c of VL rows, which lie ld bytes apart. Four rows lie beside the four below them, and their
// 4 x 4 blocks are transposed together.
INLINE void read_columns(const uint8_t *p, long ld, V out[VL]) {
#pragma GCC unroll 2
  for (int c = 0; c < 8; c += 4, p += 16) {
    __m256 r[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      __m256 low = _mm256_castps128_ps256(_mm_loadu_ps((const float *)(p + i * ld)));
      r[i] = _mm256_insertf128_ps(low, _mm_loadu_ps((const float *)(p + (4 + i) * ld)), 1);
    }
    __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    __m256 d = _mm256_unpacklo_ps(r[2], r[3]), e = _mm256_unpackhi_ps(r[2], r[3]);
    out[c] = (V)_mm256_shuffle_ps(a, d, 0x44);
    out[c + 1] = (V)_mm256_shuffle_ps(a, d, 0xee);
    out[c + 2] = (V)_mm256_shuffle_ps(b, e, 0x44);
    out[c + 3] = (V)_mm256_shuffle_ps(b, e, 0xee);
  }
}

#include "set.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
