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

// t[r][i] (+)= sum over n steps of row r of the left factor and column i of the right one's first tile, 16 of each: a pair of the row
// meets that of all columns at once. Rows lie row bytes apart, their steps step. Meanwhile a line of each row from next on is asked for.
static __attribute__((noinline)) void sixteen(int n, const char *left, long row, long step, const char *right, const char *next, float t[16][16], int add) {
  __m512 r[16];
  for (int i = 0; i < 16; i++) r[i] = add ? _mm512_load_ps(t[i]) : _mm512_setzero_ps();
  for (; n > 0; n--, left += step, right += 2 * TILE, next += 64)
    for (int p = 0; p < 16; p++) {
      __m512bh x = (__m512bh)_mm512_load_si512(right + p * 64);
      __builtin_prefetch(next + p * row, 0, 2);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = _mm512_dpbf16_ps(r[i], x, (__m512bh)_mm512_set1_epi32(*(const int32_t *)(left + i * row + p * 4)));
    }
  for (int i = 0; i < 16; i++) _mm512_store_ps(t[i], r[i]);
}

// c[m][n] (+)= sum over k of x[m][k] w[n][k] for the columns n0 <= n < n1 and at most 16 rows of x, packed in xp as the right factor.
// BF16 weights are taken as they lie in memory, others are turned into it a few steps at a time.
void K(few)(const char *xp, int m, int k, int xparts, const void *w, int dtype, int wparts, long ld, int n0, int n1, float *c, long ldc, int add) {
  enum { CHUNK = 4 };
  char some[CHUNK * 2 * TILE] __attribute__((aligned(64))) = {};
  float t[16][16] __attribute__((aligned(64)));
  for (int n = n0; n < n1; n += 16) {
    const char *rows = (const char *)w + n * ld * size(dtype);
    const int wide = n1 - n < 16 ? n1 - n : 16;
    if (dtype == BF16 && k % DEPTH == 0 && wide == 16)
      sixteen(steps(k), rows, 2 * ld, 64, xp, rows + 16 * 2 * ld, t, 0);
    else
      for (int k0 = 0; k0 < k; k0 += CHUNK * DEPTH) {
        const int k1 = k - k0 < CHUNK * DEPTH ? k : k0 + CHUNK * DEPTH;
        weights(rows, dtype, 1, 0, ld, wide, k0, k1, some, 0);
        sixteen(steps(k1 - k0), some, 64, 2 * TILE, xp + (long)k0 / DEPTH * 2 * TILE, some, t, k0 > 0);
      }
    put_tile(t, 1, c + n, ldc, m, wide, add);
  }
}
#ifdef __clang__
#pragma clang attribute pop
#endif
