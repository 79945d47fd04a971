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

// the sums of a left and a right block over n steps, in tiles 0 to 3
static inline __attribute__((always_inline)) void sums(int n, const char *left, const int lparts, const char *right, const int rparts, const int two_l, const int two_r) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
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
  _tile_stored(0, c[0], 64);
  _tile_stored(1, c[1], 64);
  _tile_stored(2, c[2], 64);
  _tile_stored(3, c[3], 64);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
