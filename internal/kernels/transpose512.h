// The transpose of a 16 x 16 block, for the files that have chosen AVX-512.

#include <immintrin.h>

// out[c][r] = t[r][c], columns ld apart: interleaves pairs, then quarters, then swaps 128-bit lanes
// twice.
static inline void transpose(float t[16][16], float *out, long ld) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    __m512 x = _mm512_load_ps(t[i]), y = _mm512_load_ps(t[i + 1]);
    a[i] = _mm512_unpacklo_ps(x, y);
    a[i + 1] = _mm512_unpackhi_ps(x, y);
  }
  for (int i = 0; i < 16; i += 4)
    for (int h = 0; h < 2; h++) {
      __m512d x = _mm512_castps_pd(a[i + h]), y = _mm512_castps_pd(a[i + 2 + h]);
      b[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      b[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  // b[4g+c] holds, in lane l, column 4l+c of rows 4g to 4g+3.
  for (int c = 0; c < 4; c++) {
    a[c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x44);
    a[4 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x44);
    a[8 + c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xee);
    a[12 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xee);
  }
  for (int h = 0; h < 16; h += 8)
    for (int c = 0; c < 4; c++) {
      __m512 x = a[h + c], y = a[h + 4 + c];
      _mm512_storeu_ps(out + (h + c) * ld, _mm512_shuffle_f32x4(x, y, 0x88));
      _mm512_storeu_ps(out + (h + 4 + c) * ld, _mm512_shuffle_f32x4(x, y, 0xdd));
    }
}
