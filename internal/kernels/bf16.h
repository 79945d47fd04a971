// Products in bf16 that are added up in f32, for the files that have chosen AVX-512 and what multiplies: they define K(name), the
// function's name for that set, and three functions, begin, end and multiply.
// A value is the sum of parts, each a bf16. An f32 is the exact sum of three, its high, middle and low eight bits; a weight stored
// as BF16 has one, an F16 two. The products of two sums whose places add up to less than three are taken; those left out are below
// the 24th bit of an f32. Values of one part only are what --compute bf16 means.

#include "transpose512.h"
#include <stdint.h>
#include <string.h>

#include "weight.h"

enum {
  SIDE = 32,   // rows or columns of a block: two tiles of 16
  DEPTH = 32,  // values of k in a tile
  TILE = 1024, // bytes of a tile: 16 rows of 16 pairs
  STEPS = 18,  // tiles of depth in a panel, at most
  GROUP = 9,   // panels that are made at a time
  AHEAD = 16384, // bytes that are asked for before they are read
};

// c[i][j] = sum over the depth of left[i] right[j] for the 2 x 2 tiles of a block, of which the second ones may be missing
static void multiply(int steps, const char *left, int lparts, const char *right, int rparts, int two_l, int two_r, float c[4][16][16]);
static void begin(void);
static void end(void);

static inline __m512 load(const void *w, int dtype, long i, __mmask16 some) {
  if (dtype == F32) return _mm512_maskz_loadu_ps(some, (const float *)w + i);
  __m256i h = _mm256_maskz_loadu_epi16(some, (const uint16_t *)w + i);
  if (dtype == BF16) return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  return _mm512_cvtph_ps(h);
}

static inline __mmask16 first(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1; }

// out[t] = part t of the 32 values of a and b: of a, then of b, or with paired each value of a below that of b in one 32-bit word;
// what the last part leaves over is rounded to it, unless the parts are known to hold all of it
static inline __attribute__((always_inline)) void split(__m512 a, __m512 b, int paired, int parts, int exact, __m512i *out) {
  const __m512i high = _mm512_set1_epi32(0xffff0000), halfway = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(0x40004)), _mm512_set1_epi32(0x30001));
  for (int t = 0; t < parts; t++) {
    __m512i ra = _mm512_castps_si512(a), rb = _mm512_castps_si512(b);
    if (t + 1 < parts || !exact) ra = _mm512_add_epi32(ra, halfway), rb = _mm512_add_epi32(rb, halfway);
    __m512i ha = _mm512_and_si512(ra, high), hb = _mm512_and_si512(rb, high);
    out[t] = paired ? _mm512_or_si512(_mm512_srli_epi32(ha, 16), hb) : _mm512_permutex2var_epi16(ra, upper, rb);
    a = _mm512_sub_ps(a, _mm512_castsi512_ps(ha));
    b = _mm512_sub_ps(b, _mm512_castsi512_ps(hb));
  }
}

// Whether that many parts are all of a value.
static inline int exact(int dtype, int parts) { return parts == 3 || dtype == BF16 || (dtype == F16 && parts == 2); }

// A block is [step][part][tile][16 rows of 16 pairs]. As the left factor a tile's rows are those of the matrix and its pairs are
// the values (2p, 2p+1) of the step's depth; as the right factor its rows are those pairs, its columns those of the matrix.

// x[i][k] for i < n, k0 <= k < k1 of a matrix with rows along k, as the left factor: row by row, as they lie in memory
static inline __attribute__((always_inline)) void along(const void *x, int dtype, int parts, long ld, int n, int k0, int k1, char *out) {
  const int bytes = (k1 - k0) * size(dtype);
  const long apart = (bytes < AHEAD ? AHEAD / bytes : 1) * ld; // in the order in which rows are read, AHEAD bytes
  for (int i = 0; i < n; i++) {
    char *to = out + i / 16 * TILE + i % 16 * 64;
    for (int k = k0; k < k1; k += DEPTH, to += parts * 2 * TILE) {
      __m512i p[3];
      long at = i * ld + k;
      const char *soon = (const char *)x + (at + apart) * size(dtype);
      _mm_prefetch(soon, _MM_HINT_T0);
      if (dtype == F32) _mm_prefetch(soon + 64, _MM_HINT_T0);
      if (dtype == BF16) { // is its own part
        _mm512_store_si512(to, _mm512_maskz_loadu_epi16(k1 - k >= DEPTH ? ~0u : (1u << (k1 - k)) - 1, (const uint16_t *)x + at));
        continue;
      }
      split(load(x, dtype, at, first(k1 - k)), load(x, dtype, at + 16, first(k1 - k - 16)), 0, parts, exact(dtype, parts), p);
      for (int c = 0; c < parts; c++) _mm512_store_si512(to + c * 2 * TILE, p[c]);
    }
  }
}

// the same as the right factor
static inline __attribute__((always_inline)) void turned(const void *x, int dtype, int parts, long ld, int n, int k0, int k1, char *out) {
  for (int k = k0; k < k1; k += DEPTH, out += parts * 2 * TILE)
    for (int tile = 0; tile < 2 && tile * 16 < n; tile++) {
      float t[3][16][16] __attribute__((aligned(64)));
      for (int i = 0; i < 16; i++) {
        __m512i p[3];
        long at = (tile * 16 + i) * ld + k;
        __mmask16 here = tile * 16 + i < n ? 0xffff : 0;
        split(load(x, dtype, at, here & first(k1 - k)), load(x, dtype, at + 16, here & first(k1 - k - 16)), 0, parts, exact(dtype, parts), p);
        for (int c = 0; c < parts; c++) _mm512_store_si512(t[c][i], p[c]);
      }
      for (int c = 0; c < parts; c++) transpose(t[c], (float *)(out + (c * 2 + tile) * TILE), 16);
    }
}

// x[k][j] for j < n, k0 <= k < k1 of a matrix with rows across k, always the right factor, one panel for every SIDE columns
static inline __attribute__((always_inline)) void across(const void *x, int dtype, int parts, long ld, int n, int k0, int k1, char *out, long panel) {
  for (int k = k0; k < k1; k += DEPTH, out += parts * 2 * TILE)
    for (int pair = 0; pair < 16; pair++) {
      const char *row = (const char *)x + (k + 2 * pair + DEPTH) * ld * size(dtype), *other = row + ld * size(dtype);
      for (int j = 0; j < n; j += 16) {
        __m512i p[3];
        __mmask16 cols = first(n - j);
        long at = (long)(k + 2 * pair) * ld + j;
        if (dtype == F32 || j % 32 == 0) _mm_prefetch(row + j * size(dtype), _MM_HINT_T0), _mm_prefetch(other + j * size(dtype), _MM_HINT_T0);
        split(load(x, dtype, at, k + 2 * pair < k1 ? cols : 0), load(x, dtype, at + ld, k + 2 * pair + 1 < k1 ? cols : 0), 1, parts, exact(dtype, parts), p);
        char *to = out + j / SIDE * panel + j % SIDE / 16 * TILE + pair * 64;
        for (int c = 0; c < parts; c++) _mm512_store_si512(to + c * 2 * TILE, p[c]);
      }
    }
}

static int steps(int k) { return (k + DEPTH - 1) / DEPTH; }

// the blocks b0 <= b < b1 of the m rows of x
void K(pack)(const float *x, long ldx, int m, int k, int parts, int left, int b0, int b1, char *xp) {
  for (int b = b0; b < b1; b++) {
    const float *rows = x + (long)b * SIDE * ldx;
    char *to = xp + (long)b * steps(k) * parts * 2 * TILE;
    int n = m - b * SIDE < SIDE ? m - b * SIDE : SIDE;
    if (left)
      along(rows, F32, parts, ldx, n, 0, k, to);
    else
      turned(rows, F32, parts, ldx, n, 0, k, to);
  }
}

// the panels of n columns
static __attribute__((noinline)) void weights(const void *w, int dtype, int parts, int in_out, long ld, int n, int k0, int k1, char *wp, long panel) {
#define PANELS(dtype, size, parts) \
  if (in_out) \
    across(w, dtype, parts, ld, n, k0, k1, wp, panel); \
  else \
    for (int j = 0; j < n; j += SIDE) along((const char *)w + j * ld * size, dtype, parts, ld, n - j < SIDE ? n - j : SIDE, k0, k1, wp + j / SIDE * panel)
  if (dtype == F32 && parts == 3) { PANELS(F32, 4, 3); }
  else if (dtype == F32) { PANELS(F32, 4, 1); }
  else if (dtype == BF16) { PANELS(BF16, 2, 1); }
  else if (parts == 2) { PANELS(F16, 2, 2); }
  else { PANELS(F16, 2, 1); }
#undef PANELS
}

// c (+)= the m x n corner of a tile, or of its transpose
static inline void put_tile(float t[16][16], int transposed, float *c, long ldc, int m, int n, int add) {
  float u[16][16] __attribute__((aligned(64)));
  if (transposed) transpose(t, u[0], 16);
  __mmask16 some = first(n);
  for (int r = 0; r < 16 && r < m; r++, c += ldc) {
    __m512 v = _mm512_load_ps(transposed ? u[r] : t[r]);
    if (add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(some, c));
    _mm512_mask_storeu_ps(c, some, v);
  }
}

// the same of a block's four tiles
static inline void put(float t[4][16][16], int transposed, float *c, long ldc, int m, int n, int add) {
  if (n > SIDE) n = SIDE;
  for (int q = 0; q < 4; q++) {
    int i = transposed ? q % 2 * 16 : q / 2 * 16, j = transposed ? q / 2 * 16 : q % 2 * 16;
    if (i < m && j < n) put_tile(t[q], transposed, c + i * ldc + j, ldc, m - i, n - j, add);
  }
}

// c[m][n] (+)= sum over k of x[m][k] w(k, n) for the columns n0 <= n < n1, at most GROUP panels; xp is x packed, wp room
// for the panels
void K(product)(const char *xp, int m, int k, int xparts, const void *w, int dtype, int wparts, int in_out, long ld, int n0, int n1, float *c, long ldc, int add, char *wp) {
  begin();
  const long xblock = (long)steps(k) * xparts * 2 * TILE;
  const int panels = (n1 - n0 + SIDE - 1) / SIDE, blocks = (m + SIDE - 1) / SIDE;
  const int slices = (steps(k) + STEPS - 1) / STEPS, depth = (steps(k) + slices - 1) / slices * DEPTH;
  float t[2][4][16][16] __attribute__((aligned(64)));
  for (int k0 = 0; k0 < k; k0 += depth) {
    int k1 = k - k0 < depth ? k : k0 + depth;
    long panel = (long)steps(k1 - k0) * wparts * 2 * TILE;
    weights((const char *)w + size(dtype) * (in_out ? n0 : n0 * ld), dtype, wparts, in_out, ld, n1 - n0, k0, k1, wp, panel);
    for (int j = 0; j <= blocks * panels; j++) { // a block's sums are written while the next one's are made
      if (j < blocks * panels) {
        int b = j / panels, p = j % panels;
        const char *x = xp + b * xblock + (long)k0 / DEPTH * xparts * 2 * TILE;
        int rows = m - b * SIDE, cols = n1 - n0 - p * SIDE;
        if (in_out)
          multiply(steps(k1 - k0), x, xparts, wp + p * panel, wparts, rows > 16, cols > 16, t[j & 1]);
        else
          multiply(steps(k1 - k0), wp + p * panel, wparts, x, xparts, cols > 16, rows > 16, t[j & 1]);
      }
      if (j > 0) {
        int b = (j - 1) / panels, p = (j - 1) % panels;
        put(t[(j & 1) ^ 1], !in_out, c + (long)b * SIDE * ldc + n0 + p * SIDE, ldc, m - b * SIDE, n1 - n0 - p * SIDE, add || k0 > 0);
      }
    }
  }
  end();
}
