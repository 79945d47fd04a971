// Products with AVX-512's dot products of bf16 pairs, for --compute bf16.

#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512bf16"))), \
    apply_to = function)
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512bf16,prefer-vector-width=512")
#endif
#define PRODUCTS ptune_bf16
#include "bf16.h"

static void begin(void) {}
static void end(void) {}

// eight rows of a left tile times one or both right tiles
INLINE void eight_rows(int n, const char *left, int lparts, const char *right, int rparts,
                       const int two_r, float *c, float *d) {
  __m512 r[8][2];
  for (int i = 0; i < 8; i++) r[i][0] = r[i][1] = _mm512_setzero_ps();
  for (; n > 0; n--, left += lparts * 2 * TILE, right += rparts * 2 * TILE)
    for (int p = 0; p < 16; p++) {
      __m512bh b0 = (__m512bh)_mm512_load_si512(right + p * 64);
      __m512bh b1 = two_r ? (__m512bh)_mm512_load_si512(right + TILE + p * 64) : b0;
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

// Multiplies first parts only: f32 is faster without this set.
static void multiply(int n, const char *left, int lparts, const char *right, int rparts, int two_l,
                     int two_r, float c[4][16][16]) {
  for (int tile = 0; tile <= two_l; tile++)
    for (int i = 0; i < 16; i += 8) {
      const char *rows = left + tile * TILE + i * 64;
      if (two_r)
        eight_rows(n, rows, lparts, right, rparts, 1, c[2 * tile][i], c[2 * tile + 1][i]);
      else
        eight_rows(n, rows, lparts, right, rparts, 0, c[2 * tile][i], c[2 * tile + 1][i]);
    }
}

// t[r][i] (+)= sum over n steps of row r of the left factor and column i of the right factor's
// first tile, 16 of each: a pair of the row meets that of all columns at once. The left factor's
// rows are row bytes apart, its steps are step bytes apart. Prefetches a line of each row from next
// on.
static __attribute__((noinline)) void sixteen_rows(int n, const char *left, long row, long step,
                                                   const char *right, const char *next,
                                                   float t[16][16], int add) {
  __m512 r[16];
  for (int i = 0; i < 16; i++) r[i] = add ? _mm512_load_ps(t[i]) : _mm512_setzero_ps();
  for (; n > 0; n--, left += step, right += 2 * TILE, next += 64)
    for (int p = 0; p < 16; p++) {
      __m512bh x = (__m512bh)_mm512_load_si512(right + p * 64);
      __builtin_prefetch(next + p * row, 0, 2);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        const int32_t pair = *(const int32_t *)(left + i * row + p * 4);
        r[i] = _mm512_dpbf16_ps(r[i], x, (__m512bh)_mm512_set1_epi32(pair));
      }
    }
  for (int i = 0; i < 16; i++) _mm512_store_ps(t[i], r[i]);
}

// sixteen_rows for the first m <= 4 columns of the right factor, which writes t[i][r]: pairs of the
// 16 rows are transposed in registers.
INLINE void few_columns(const int m, int n, const char *left, long row, long step,
                        const char *right, const char *next, float t[16][16], int add) {
  __m512 r[4];
  for (int i = 0; i < m; i++) r[i] = add ? _mm512_load_ps(t[i]) : _mm512_setzero_ps();
  for (; n > 0; n--, left += step, right += 2 * TILE, next += 64) {
    __m512 pairs[16];
    columns512((const uint8_t *)left, row, pairs);
#pragma GCC unroll 16
    for (int p = 0; p < 16; p++) {
      __builtin_prefetch(next + p * row, 0, 2);
      for (int i = 0; i < m; i++) {
        const __m512i x = _mm512_set1_epi32(*(const int32_t *)(right + p * 64 + i * 4));
        r[i] = _mm512_dpbf16_ps(r[i], (__m512bh)x, (__m512bh)_mm512_castps_si512(pairs[p]));
      }
    }
  }
  for (int i = 0; i < m; i++) _mm512_store_ps(t[i], r[i]);
}

// sixteen_rows, or few_columns if x has at most four rows
static void some_rows(int m, int n, const char *left, long row, long step, const char *right,
                      const char *next, float t[16][16], int add) {
  switch (m) {
#define COLUMNS(m) \
  case m: few_columns(m, n, left, row, step, right, next, t, add); break;
    COLUMNS(1) COLUMNS(2) COLUMNS(3) COLUMNS(4)
#undef COLUMNS
  default: sixteen_rows(n, left, row, step, right, next, t, add);
  }
}

// At most 16 rows of x, packed as the right factor. BF16 weights are read where they are, others
// are turned into bf16 a few steps at a time.
static void few_packed(const product_args *args) {
  enum { CHUNK = 4 }; // steps
  const product_args a = *args;
  const int slice = slice_depth(a.k);
  char parts[CHUNK * 2 * TILE] __attribute__((aligned(64))) = {};
  float t[16][16] __attribute__((aligned(64)));
  for (int n = a.n0; n < a.n1; n += 16) {
    const int wide = a.n1 - n < 16 ? a.n1 - n : 16;
    for (int s0 = 0, s1; s0 < a.k; s0 = s1) {
      s1 = a.k - s0 < slice ? a.k : s0 + slice;
      const char *x = (const char *)a.x + (long)s0 / DEPTH * 2 * TILE;
      if (a.format == BF16 && a.k % DEPTH == 0 && wide == 16) {
        const char *rows = (const char *)a.w + 2 * (n * a.ldw + s0);
        some_rows(a.m, steps(s1 - s0), rows, 2 * a.ldw, 64, x, rows + 16 * 2 * a.ldw, t, 0);
      } else
        for (int k0 = s0; k0 < s1; k0 += CHUNK * DEPTH, x += CHUNK * 2 * TILE) {
          const int k1 = s1 - k0 < CHUNK * DEPTH ? s1 : k0 + CHUNK * DEPTH;
          const source s = {a.w, n * a.ldw, a.ldw, wide, k0, k1};
          weights(a.format, 1, 0, &s, parts, 0);
          some_rows(a.m, steps(k1 - k0), parts, 64, 2 * TILE, x, parts, t, k0 > s0);
        }
      store_tile(t, a.m > 4, a.out + n, a.ldo, a.m, wide, a.add || s0 > 0);
    }
  }
}
#ifdef __clang__
#pragma clang attribute pop
#endif
