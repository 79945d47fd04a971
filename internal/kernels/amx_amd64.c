// Products on the matrix unit: AMX's tiles of 16 x 32 bf16. Three parts of each factor, which make f32, cost six products.

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,amx-tile,amx-bf16,prefer-vector-width=512")
#endif
#define K(name) ptune_amx_##name
#include "bf16.h"
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// The kernel hands out the tiles' registers on request only.
int ptune_amx_allowed(void) {
#ifdef __linux__
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
#else
  return 0;
#endif
}

static void begin(void) {
  static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } config = {.palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&config);
}

static void end(void) { _tile_release(); }

// asks for the two tiles of a part that the next step reads
static inline __attribute__((always_inline)) void ahead(const char *block, int parts, int part) {
  const char *next = block + (parts + part) * 2 * TILE;
#pragma GCC unroll 32
  for (int line = 0; line < 2 * TILE; line += 64) _mm_prefetch(next + line, _MM_HINT_T0);
}

static inline void clear(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

static inline void take(float c[4][16][16]) {
  _tile_stored(0, c[0], 64);
  _tile_stored(1, c[1], 64);
  _tile_stored(2, c[2], 64);
  _tile_stored(3, c[3], 64);
}

// the sums of a left and a right block over n steps, in tiles 0 to 3
static inline __attribute__((always_inline)) void sums(int n, const char *left, const int lparts, const char *right, const int rparts, const int two_l, const int two_r) {
  clear();
  char awake[TILE] __attribute__((aligned(64)));
  for (; n > 0; n--, left += lparts * 2 * TILE, right += rparts * 2 * TILE) {
    // Sapphire Rapids: the first store of a tile after some 2,000 cycles without one takes another 1,000
    _tile_stored(5, awake, 64);
#pragma GCC unroll 3
    for (int i = 0; i < lparts; i++) {
      _tile_loadd(4, left + i * 2 * TILE, 64);
      if (two_l) _tile_loadd(5, left + (i * 2 + 1) * TILE, 64);
      ahead(left, lparts, i);
#pragma GCC unroll 3
      for (int j = 0; j < (rparts < 3 - i ? rparts : 3 - i); j++) {
        _tile_loadd(6, right + j * 2 * TILE, 64);
        if (two_r) _tile_loadd(7, right + (j * 2 + 1) * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (two_r) _tile_dpbf16ps(1, 4, 7);
        if (i == 0) ahead(right, rparts, j);
        if (two_l) _tile_dpbf16ps(2, 5, 6);
        if (two_l && two_r) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
}

static __attribute__((noinline)) void multiply(int n, const char *left, int lparts, const char *right, int rparts, int two_l, int two_r, float c[4][16][16]) {
#define SUMS(l, r) \
  if (lparts == l && rparts == r) { \
    if (two_l && two_r) \
      sums(n, left, l, right, r, 1, 1); \
    else if (two_l) \
      sums(n, left, l, right, r, 1, 0); \
    else if (two_r) \
      sums(n, left, l, right, r, 0, 1); \
    else \
      sums(n, left, l, right, r, 0, 0); \
  }
  SUMS(3, 3) SUMS(3, 2) SUMS(3, 1) SUMS(2, 3) SUMS(1, 3) SUMS(1, 1)
#undef SUMS
  take(c);
}

// Adds n steps to the sums of up to 64 rows of a left factor and the 16 of a right one: tiles 0 to 3, with the right factor's parts
// in 5 to 7. The left factor's tiles lie half and pair bytes apart, its steps step bytes. After each of a step's products lines of
// what is wanted next are asked for: a thread that asks for more at a time waits for the answer.
static inline __attribute__((always_inline)) void four(int n, const char *left, long ld, long half, long pair, long step, const int lparts, const char *right, const int rparts, int tiles, const char *next) {
  const int products = lparts == 2 ? 5 : rparts, lines = (16 + products - 1) / products; // a tile's weights are 16 lines
#define ASK for (int a = 0; a < lines; a++, next += 64) __builtin_prefetch(next, 0, 2)
#define ROWS(tile, at) \
  if (tile < tiles) \
    for (int i = 0; i < lparts; i++) { \
      _tile_loadd(4, left + at + i * 2 * TILE, ld); \
      _tile_dpbf16ps(tile, 4, 5); \
      ASK; \
      if (rparts > 1 && i < 2) { \
        _tile_dpbf16ps(tile, 4, 6); \
        ASK; \
      } \
      if (rparts > 2 && i < 1) { \
        _tile_dpbf16ps(tile, 4, 7); \
        ASK; \
      } \
    }
  for (; n > 0; n--, left += step, right += rparts * 2 * TILE) {
    _tile_loadd(5, right, 64);
    if (rparts > 1) _tile_loadd(6, right + 2 * TILE, 64);
    if (rparts > 2) _tile_loadd(7, right + 4 * TILE, 64);
    ROWS(0, 0) ROWS(1, half) ROWS(2, pair) ROWS(3, pair + half)
  }
#undef ROWS
#undef ASK
}

// c[m][n] (+)= sum over k of x[m][k] w[n][k] for the columns n0 <= n < n1 and at most 16 rows of x, packed in xp as the right factor.
// Weights have two parts at most: f32 in three is faster with AVX-512. A weight is wanted once: it is turned into parts a few steps at a time, which stay in the first-level cache, or, where it is
// BF16, taken as it lies in memory.
void K(few)(const char *xp, int m, int k, int xparts, const void *w, int dtype, int wparts, long ld, int n0, int n1, float *c, long ldc, int add) {
  enum { CHUNK = 2, WIDE = 64 };
  char parts[2][WIDE / SIDE * CHUNK * 2 * 2 * TILE] __attribute__((aligned(64)));
  float t[4][16][16] __attribute__((aligned(64)));
  const long panel = CHUNK * wparts * 2 * TILE;
  begin();
  for (int n = n0; n < n1; n += WIDE) {
    const char *rows = (const char *)w + n * ld * size(dtype), *next = rows + WIDE * ld * size(dtype);
    const int wide = n1 - n < WIDE ? n1 - n : WIDE, tiles = (wide + 15) / 16, asis = dtype == BF16 && k % DEPTH == 0 && wide % 16 == 0;
    const int depth = asis ? DEPTH : CHUNK * DEPTH;
    clear();
    for (int k0 = 0, i = 0; k0 < k; k0 += depth, i ^= 1, next += WIDE * depth * size(dtype)) {
      const int k1 = k - k0 < depth ? k : k0 + depth, n = steps(k1 - k0);
      const char *x = xp + (long)k0 / DEPTH * xparts * 2 * TILE;
      if (asis && xparts == 3)
        four(n, rows + 2 * k0, 2 * ld, 32 * ld, 64 * ld, 0, 1, x, 3, tiles, next);
      else if (asis)
        four(n, rows + 2 * k0, 2 * ld, 32 * ld, 64 * ld, 0, 1, x, 1, tiles, next);
      else {
        weights(rows, dtype, wparts, 0, ld, wide, k0, k1, parts[i], panel);
#define FOUR(l, r) \
  if (wparts == l && xparts == r) four(n, parts[i], 64, TILE, panel, l * 2 * TILE, l, x, r, tiles, next)
        FOUR(2, 3);
        FOUR(1, 3);
        FOUR(1, 1);
#undef FOUR
      }
    }
    take(t);
    for (int q = 0; q < tiles; q++) put_tile(t[q], 1, c + n + q * 16, ldc, m, wide - q * 16, add);
  }
  end();
}
#ifdef __clang__
#pragma clang attribute pop
#endif
