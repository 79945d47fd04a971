// Products on AMX, whose tiles are 16 x 32 bf16. Three parts of each factor, which make f32, take
// six tile products.

#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,amx-tile,amx-bf16,prefer-vector-width=512")
#endif
#define PRODUCTS ptune_amx
#include "bf16.h"
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Linux lets a process use the tile registers only after it has asked.
int ptune_amx_allowed(void) {
#ifdef __linux__
  const int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 0;
#endif
}

static void begin(void) {
  static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } config = {
      .palette = 1,
      .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
      .rows = {16, 16, 16, 16, 16, 16, 16, 16},
  };
  _tile_loadconfig(&config);
}

static void end(void) { _tile_release(); }

// prefetches the two tiles of a part that the next step reads
INLINE void prefetch_next(const char *block, int parts, int part) {
  const char *next = block + (parts + part) * 2 * TILE;
#pragma GCC unroll 32
  for (int line = 0; line < 2 * TILE; line += 64) _mm_prefetch(next + line, _MM_HINT_T0);
}

static inline void clear_sums(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

static inline void store_sums(float c[4][16][16]) {
  _tile_stored(0, c[0], 64);
  _tile_stored(1, c[1], 64);
  _tile_stored(2, c[2], 64);
  _tile_stored(3, c[3], 64);
}

// the sums of a left and a right block over n steps, in tiles 0 to 3
INLINE void block_sums(int n, const char *left, const int lparts, const char *right,
                       const int rparts, const int two_l, const int two_r) {
  clear_sums();
  char awake[TILE] __attribute__((aligned(64)));
  for (; n > 0; n--, left += lparts * 2 * TILE, right += rparts * 2 * TILE) {
    // Sapphire Rapids: the first store of a tile takes 1,000 cycles more if there was none for
    // about 2,000 cycles.
    _tile_stored(5, awake, 64);
#pragma GCC unroll 3
    for (int i = 0; i < lparts; i++) {
      _tile_loadd(4, left + i * 2 * TILE, 64);
      if (two_l) _tile_loadd(5, left + (i * 2 + 1) * TILE, 64);
      prefetch_next(left, lparts, i);
#pragma GCC unroll 3
      for (int j = 0; j < (rparts < 3 - i ? rparts : 3 - i); j++) {
        _tile_loadd(6, right + j * 2 * TILE, 64);
        if (two_r) _tile_loadd(7, right + (j * 2 + 1) * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (two_r) _tile_dpbf16ps(1, 4, 7);
        if (i == 0) prefetch_next(right, rparts, j);
        if (two_l) _tile_dpbf16ps(2, 5, 6);
        if (two_l && two_r) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
}

static __attribute__((noinline)) void multiply(int n, const char *left, int lparts,
                                               const char *right, int rparts, int two_l, int two_r,
                                               float c[4][16][16]) {
#define PARTS(l, r) \
  if (lparts == l && rparts == r) { \
    if (two_l && two_r) \
      block_sums(n, left, l, right, r, 1, 1); \
    else if (two_l) \
      block_sums(n, left, l, right, r, 1, 0); \
    else if (two_r) \
      block_sums(n, left, l, right, r, 0, 1); \
    else \
      block_sums(n, left, l, right, r, 0, 0); \
  }
  PARTS(3, 3) PARTS(3, 2) PARTS(3, 1) PARTS(2, 3) PARTS(1, 3) PARTS(1, 1)
#undef PARTS
  store_sums(c);
}

// Where the tiles of few_packed's left factor lie, in bytes: rows in a tile, the two tiles of a
// pair, pairs, and steps.
typedef struct {
  long row, tile, pair, step;
} layout;

// Adds n steps to the sums of up to four tiles of a left factor and the 16 columns of a right one:
// sums in tiles 0 to 3, the right factor's parts in 5 to 7. After each product it prefetches a few
// lines from next on: a thread that prefetches more at a time has to wait.
INLINE void four_tiles(int n, const char *left, layout at, const int lparts, const char *right,
                       const int rparts, int tiles, const char *next) {
  const int products = lparts == 3 ? 6 : lparts == 2 ? 5 : rparts;
  const int lines = (16 + products - 1) / products; // a tile's weights are 16 lines
#define PREFETCH for (int a = 0; a < lines; a++, next += 64) __builtin_prefetch(next, 0, 2)
#define ROWS(index, offset) \
  if (index < tiles) \
    for (int i = 0; i < lparts; i++) { \
      _tile_loadd(4, left + offset + i * 2 * TILE, at.row); \
      _tile_dpbf16ps(index, 4, 5); \
      PREFETCH; \
      if (rparts > 1 && i < 2) { \
        _tile_dpbf16ps(index, 4, 6); \
        PREFETCH; \
      } \
      if (rparts > 2 && i < 1) { \
        _tile_dpbf16ps(index, 4, 7); \
        PREFETCH; \
      } \
    }
  for (; n > 0; n--, left += at.step, right += rparts * 2 * TILE) {
    _tile_loadd(5, right, 64);
    if (rparts > 1) _tile_loadd(6, right + 2 * TILE, 64);
    if (rparts > 2) _tile_loadd(7, right + 4 * TILE, 64);
    ROWS(0, 0) ROWS(1, at.tile) ROWS(2, at.pair) ROWS(3, at.pair + at.tile)
  }
#undef ROWS
#undef PREFETCH
}

// At most 16 rows of x, packed as the right factor. BF16 weights are read where they are. Others are
// turned into parts a few steps at a time, which stay in the first-level cache.
static void few_packed(const product_args *args) {
  enum { CHUNK = 2, WIDE = 64 };
  const product_args a = *args;
  char parts[2][WIDE / SIDE * CHUNK * 3 * 2 * TILE] __attribute__((aligned(64)));
  float t[4][16][16] __attribute__((aligned(64)));
  const long panel = CHUNK * a.wparts * 2 * TILE;
  const int slice = slice_depth(a.k);
  begin();
  for (int n = a.n0; n < a.n1; n += WIDE) {
    const char *rows = (const char *)a.w + bytes_of(a.format, n * a.ldw);
    const char *next = rows + bytes_of(a.format, WIDE * a.ldw);
    const int wide = a.n1 - n < WIDE ? a.n1 - n : WIDE, tiles = (wide + 15) / 16;
    const int in_place = a.format == BF16 && a.k % DEPTH == 0 && wide % 16 == 0;
    const int depth = in_place ? DEPTH : CHUNK * DEPTH;
    for (int s0 = 0, s1; s0 < a.k; s0 = s1) {
      s1 = a.k - s0 < slice ? a.k : s0 + slice;
      clear_sums();
      for (int k0 = s0, i = 0; k0 < s1;
           k0 += depth, i ^= 1, next += bytes_of(a.format, WIDE * depth)) {
        const int k1 = s1 - k0 < depth ? s1 : k0 + depth, left = steps(k1 - k0);
        const char *x = (const char *)a.x + (long)k0 / DEPTH * a.xparts * 2 * TILE;
        if (in_place) {
          const layout bf16 = {2 * a.ldw, 32 * a.ldw, 64 * a.ldw, 0};
          if (a.xparts == 3)
            four_tiles(left, rows + 2 * k0, bf16, 1, x, 3, tiles, next);
          else
            four_tiles(left, rows + 2 * k0, bf16, 1, x, 1, tiles, next);
          continue;
        }
        const source s = {a.w, n * a.ldw, a.ldw, wide, k0, k1};
        weights(a.format, a.wparts, 0, &s, parts[i], panel);
#define PARTS(l, r) \
  if (a.wparts == l && a.xparts == r) { \
    const layout packed = {64, TILE, panel, l * 2 * TILE}; \
    four_tiles(left, parts[i], packed, l, x, r, tiles, next); \
  }
        PARTS(3, 3) PARTS(2, 3) PARTS(1, 3) PARTS(1, 1)
#undef PARTS
      }
      store_sums(t);
      for (int q = 0; q < tiles; q++)
        store_tile(t[q], 1, a.out + n + q * 16, a.ldo, a.m, wide - q * 16, a.add || s0 > 0);
    }
  }
  end();
}
#ifdef __clang__
#pragma clang attribute pop
#endif
