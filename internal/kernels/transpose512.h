// The transpose of a 16 x 16 block, for the files that have chosen AVX-512.

#include <immintrin.h>
#include <stdint.h>

// out[c] = column c of 16 rows, which lie ld bytes apart: interleaves pairs, then quarters, then swaps
// 128-bit lanes twice.
static inline __attribute__((always_inline)) void columns512(const uint8_t *p, long ld,
                                                             __m512 out[16]) {
  __m512 a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    __m512 x = _mm512_loadu_ps(p + i * ld), y = _mm512_loadu_ps(p + (i + 1) * ld);
    a[i] = _mm512_unpacklo_ps(x, y);
    a[i + 1] = _mm512_unpackhi_ps(x, y);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      __m512d x = _mm512_castps_pd(a[i + h]), y = _mm512_castps_pd(a[i + 2 + h]);
      b[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      b[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  // b[4g+c] holds, in lane l, column 4l+c of rows 4g to 4g+3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    a[c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x44);
    a[4 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x44);
    a[8 + c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xee);
    a[12 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xee);
  }
#pragma GCC unroll 2
  for (int h = 0; h < 16; h += 8)
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      out[h + c] = _mm512_shuffle_f32x4(a[h + c], a[h + 4 + c], 0x88);
      out[h + 4 + c] = _mm512_shuffle_f32x4(a[h + c], a[h + 4 + c], 0xdd);
    }
}
