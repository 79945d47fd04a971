// Products with AVX-512's dot products of bf16 pairs, for --compute bf16.

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512bf16,prefer-vector-width=512")
#endif
#define K(name) ptune_bf16_##name
#include "bf16.h"

static void begin(void) {}
static void end(void) {}

// eight rows of a left tile against one or both right tiles
static inline __attribute__((always_inline)) void eight(int n, const char *left, int lparts, const char *right, int rparts, const int two_r, float *c, float *d) {
  __m512 r[8][2];
  for (int i = 0; i < 8; i++) r[i][0] = r[i][1] = _mm512_setzero_ps();
  for (; n > 0; n--, left += lparts * 2 * TILE, right += rparts * 2 * TILE)
    for (int p = 0; p < 16; p++) {
      __m512bh b0 = (__m512bh)_mm512_load_si512(right + p * 64), b1 = two_r ? (__m512bh)_mm512_load_si512(right + TILE + p * 64) : b0;
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        __m512bh a = (__m512bh)_mm512_set1_epi32(((const int32_t *)left)[i * 16 + p]);
        r[i][0] = _mm512_dpbf16_ps(r[i][0], a, b0);
        if (two_r) r[i][1] = _mm512_dpbf16_ps(r[i][1], a, b1);
      }
    }
  for (int i = 0; i < 8; i++) {
    _mm512_store_ps(c + i * 16, r[i][0]);
    if (two_r) _mm512_store_ps(d + i * 16, r[i][1]);
  }
}

// only first parts are multiplied: f32 is faster without this
static void multiply(int n, const char *left, int lparts, const char *right, int rparts, int two_l, int two_r, float c[4][16][16]) {
  for (int tile = 0; tile <= two_l; tile++)
    for (int i = 0; i < 16; i += 8) {
      const char *rows = left + tile * TILE + i * 64;
      if (two_r)
        eight(n, rows, lparts, right, rparts, 1, c[2 * tile][i], c[2 * tile + 1][i]);
      else
        eight(n, rows, lparts, right, rparts, 0, c[2 * tile][i], c[2 * tile + 1][i]);
    }
}
#ifdef __clang__
#pragma clang attribute pop
#endif
