// Products in bf16 that are added up in f32, for the files that have chosen AVX-512 and the unit
// that multiplies. They define PRODUCTS (the name of the table), begin, end, multiply and
// few_packed.
//
// A value is packed as the sum of parts, each a bf16. An f32 is the exact sum of three: its high,
// middle and low eight bits. A weight stored as BF16 has one part, an F16 two. Part i of one factor
// is multiplied with part j of the other if i + j < 3; the rest is below the 24th bit of an f32.
// --compute bf16 means values of one part only.
//
// A block is [step][part][tile][16 rows of 16 pairs]. As the left factor, a tile's rows are the
// rows of the matrix and its pairs are the values 2p and 2p+1 of the step's depth. As the right
// factor, its rows are those pairs and its columns are the columns of the matrix.

#include <stdint.h>
#include <string.h>

#include "args.h"
#include "transpose512.h"

#define INLINE static inline __attribute__((always_inline))

enum {
  SIDE = 32,     // rows or columns of a block: two tiles of 16
  DEPTH = 32,    // values summed over in a tile
  TILE = 1024,   // bytes of a tile: 16 rows of 16 pairs
  STEPS = 18,    // tiles in the depth of a panel, at most
  GROUP = 9,     // panels that are made at a time
  AHEAD = 16384, // bytes that are prefetched before they are read
};

// c[i][j] = sum over the depth of left[i] right[j], for the 2 x 2 tiles of a block. Without two_l
// or two_r the second tile of that factor is missing.
static void multiply(int steps, const char *left, int lparts, const char *right, int rparts,
                     int two_l, int two_r, float c[4][16][16]);
static void begin(void);
static void end(void);
static void few_packed(const product_args *args);

// out[c][r] = t[r][c], columns ld apart
static inline void transpose(float t[16][16], float *out, long ld) {
  __m512 columns[16];
  columns512((const uint8_t *)t, 64, columns);
  for (int c = 0; c < 16; c++) _mm512_storeu_ps(out + c * ld, columns[c]);
}

// The values i to i+15 of a weight that mask names, zeros for the others. They lie in one block if
// blocks hold more than one value. Nothing may be read with an empty mask: i can be beyond the end.
INLINE __m512 load_weights(const uint8_t *w, const int format, long i, __mmask16 mask) {
  if (format == F32) return _mm512_maskz_loadu_ps(mask, (const float *)w + i);
  __m256i h = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + i);
  if (format == BF16)
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  if (format == F16) return _mm512_cvtph_ps(h);
  __builtin_unreachable(); // every format is above
}

// all bits set in the first n of 16
static inline __mmask16 mask_first(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1; }

// out[t] = part t of the 32 values of a and b: those of a, then those of b, or, if paired, each
// value of a below that of b in one 32-bit word. The last part is rounded to bf16 unless the parts
// are exact.
INLINE void to_parts(__m512 a, __m512 b, int paired, int parts, int exact, __m512i *out) {
  const __m512i high = _mm512_set1_epi32(0xffff0000), halfway = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_add_epi32( // 1, 3, 5, …: the upper halves of 32-bit words
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(0x40004)),
      _mm512_set1_epi32(0x30001));
  for (int t = 0; t < parts; t++) {
    __m512i ra = _mm512_castps_si512(a), rb = _mm512_castps_si512(b);
    if (t + 1 < parts || !exact) {
      ra = _mm512_add_epi32(ra, halfway);
      rb = _mm512_add_epi32(rb, halfway);
    }
    __m512i ha = _mm512_and_si512(ra, high), hb = _mm512_and_si512(rb, high);
    out[t] = paired ? _mm512_or_si512(_mm512_srli_epi32(ha, 16), hb)
                    : _mm512_permutex2var_epi16(ra, upper, rb);
    a = _mm512_sub_ps(a, _mm512_castsi512_ps(ha));
    b = _mm512_sub_ps(b, _mm512_castsi512_ps(hb));
  }
}

// ---- packing ----

// What is packed: from value at on, n rows (or, if stored [k, n], columns) of the values
// k0 <= k < k1.
typedef struct {
  const uint8_t *x;
  long at, ld;
  int n, k0, k1;
} source;

// A matrix stored [n, k] as the left factor: its rows as they lie in memory.
INLINE void pack_left(const int format, const int parts, source s, char *out) {
  const int exact = parts >= format_parts(format), bytes = bytes_of(format, s.k1 - s.k0);
  const long apart = (bytes < AHEAD ? AHEAD / bytes : 1) * s.ld; // AHEAD bytes, in reading order
  for (int i = 0; i < s.n; i++) {
    char *to = out + i / 16 * TILE + i % 16 * 64;
    for (int k = s.k0; k < s.k1; k += DEPTH, to += parts * 2 * TILE) {
      const int left = s.k1 - k;
      const long at = s.at + i * s.ld + k;
      const uint8_t *soon = s.x + bytes_of(format, at + apart);
      _mm_prefetch(soon, _MM_HINT_T0);
      if (format == F32) _mm_prefetch(soon + 64, _MM_HINT_T0);
      if (format == BF16) { // is its own part
        const __mmask32 mask = left >= DEPTH ? ~0u : (1u << left) - 1;
        _mm512_store_si512(to, _mm512_maskz_loadu_epi16(mask, (const uint16_t *)s.x + at));
        continue;
      }
      __m512i p[3];
      to_parts(load_weights(s.x, format, at, mask_first(left)),
               load_weights(s.x, format, at + 16, mask_first(left - 16)), 0, parts, exact, p);
      for (int c = 0; c < parts; c++) _mm512_store_si512(to + c * 2 * TILE, p[c]);
    }
  }
}

// A matrix stored [n, k] as the right factor.
INLINE void pack_transposed(const int format, const int parts, source s, char *out) {
  const int exact = parts >= format_parts(format);
  for (int k = s.k0; k < s.k1; k += DEPTH, out += parts * 2 * TILE)
    for (int tile = 0; tile < 2 && tile * 16 < s.n; tile++) {
      float t[3][16][16] __attribute__((aligned(64)));
      for (int i = 0; i < 16; i++) {
        const long at = s.at + (tile * 16 + i) * s.ld + k;
        const __mmask16 row = tile * 16 + i < s.n ? 0xffff : 0;
        __m512i p[3];
        to_parts(load_weights(s.x, format, at, row & mask_first(s.k1 - k)),
                 load_weights(s.x, format, at + 16, row & mask_first(s.k1 - k - 16)), 0, parts,
                 exact, p);
        for (int c = 0; c < parts; c++) _mm512_store_si512(t[c][i], p[c]);
      }
      for (int c = 0; c < parts; c++)
        transpose(t[c], (float *)(out + (c * 2 + tile) * TILE), 16);
    }
}

// A matrix stored [k, n], always the right factor: one panel, panel bytes apart, for every SIDE
// columns.
INLINE void pack_pairs(const int format, const int parts, source s, char *out, long panel) {
  const int exact = parts >= format_parts(format);
  for (int k = s.k0; k < s.k1; k += DEPTH, out += parts * 2 * TILE)
    for (int pair = 0; pair < 16; pair++) {
      const int row = k + 2 * pair;
      const uint8_t *next = s.x + bytes_of(format, s.at + (row + DEPTH) * s.ld);
      const uint8_t *after = next + bytes_of(format, s.ld);
      for (int j = 0; j < s.n; j += 16) {
        const __mmask16 cols = mask_first(s.n - j);
        const long at = s.at + (long)row * s.ld + j;
        if (format == F32 || j % 32 == 0) {
          _mm_prefetch(next + bytes_of(format, j), _MM_HINT_T0);
          _mm_prefetch(after + bytes_of(format, j), _MM_HINT_T0);
        }
        __m512i p[3];
        to_parts(load_weights(s.x, format, at, row < s.k1 ? cols : 0),
                 load_weights(s.x, format, at + s.ld, row + 1 < s.k1 ? cols : 0), 1, parts, exact,
                 p);
        char *to = out + j / SIDE * panel + j % SIDE / 16 * TILE + pair * 64;
        for (int c = 0; c < parts; c++) _mm512_store_si512(to + c * 2 * TILE, p[c]);
      }
    }
}

static int steps(int k) { return (k + DEPTH - 1) / DEPTH; }

// The depth of a slice. A result is the sum of a slice's steps from first to last, to which that of
// the next slice is added, in product and in few_packed.
static int slice_depth(int k) {
  const int slices = (steps(k) + STEPS - 1) / STEPS;
  return (steps(k) + slices - 1) / slices * DEPTH;
}

static void pack(const pack_args *args) {
  const pack_args a = *args;
  for (int b = a.b0; b < a.b1; b++) {
    const int n = a.m - b * SIDE < SIDE ? a.m - b * SIDE : SIDE;
    const source s = {(const uint8_t *)a.x, (long)b * SIDE * a.ldx, a.ldx, n, 0, a.k};
    char *to = (char *)a.packed + (long)b * steps(a.k) * a.parts * 2 * TILE;
    if (a.in_out)
      pack_left(F32, a.parts, s, to);
    else
      pack_transposed(F32, a.parts, s, to);
  }
}

INLINE void weights_of(const int format, const int parts, int in_out, source s, char *out,
                       long panel) {
  if (in_out) {
    pack_pairs(format, parts, s, out, panel);
    return;
  }
  for (int j = 0; j < s.n; j += SIDE) {
    source side = s;
    side.at += j * s.ld;
    side.n = s.n - j < SIDE ? s.n - j : SIDE;
    pack_left(format, parts, side, out + j / SIDE * panel);
  }
}

// packs the panels of s.n columns of a weight
static __attribute__((noinline)) void weights(int format, int parts, int in_out, const source *s,
                                              char *out, long panel) {
  switch (format) {
#define X(format, values, bytes, all) \
  case format: \
    if (all == 1 || parts == all) \
      weights_of(format, all, in_out, *s, out, panel); \
    else \
      weights_of(format, 1, in_out, *s, out, panel); \
    break;
    FORMATS(X)
#undef X
  }
}

// ---- the product ----

// c (+)= the m x n corner of a tile, or of its transpose
static inline void store_tile(float t[16][16], int transposed, float *c, long ldc, int m, int n,
                              int add) {
  float u[16][16] __attribute__((aligned(64)));
  if (transposed) transpose(t, u[0], 16);
  const __mmask16 cols = mask_first(n);
  for (int r = 0; r < 16 && r < m; r++, c += ldc) {
    __m512 v = _mm512_load_ps(transposed ? u[r] : t[r]);
    if (add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(cols, c));
    _mm512_mask_storeu_ps(c, cols, v);
  }
}

// the same for the four tiles of a block
static inline void store_block(float t[4][16][16], int transposed, float *c, long ldc, int m, int n,
                               int add) {
  if (n > SIDE) n = SIDE;
  for (int q = 0; q < 4; q++) {
    int i = transposed ? q % 2 * 16 : q / 2 * 16, j = transposed ? q / 2 * 16 : q % 2 * 16;
    if (i < m && j < n)
      store_tile(t[q], transposed, c + i * ldc + j, ldc, m - i, n - j, add);
  }
}

// at most GROUP panels of columns; x is packed
static void product(const product_args *args) {
  const product_args a = *args;
  begin();
  const long xblock = (long)steps(a.k) * a.xparts * 2 * TILE;
  const int panels = (a.n1 - a.n0 + SIDE - 1) / SIDE, blocks = (a.m + SIDE - 1) / SIDE;
  const int depth = slice_depth(a.k);
  char *packed_panels = (char *)a.scratch;
  float t[2][4][16][16] __attribute__((aligned(64)));
  for (int k0 = 0; k0 < a.k; k0 += depth) {
    const int k1 = a.k - k0 < depth ? a.k : k0 + depth;
    const long panel = (long)steps(k1 - k0) * a.wparts * 2 * TILE;
    const long at = a.in_out ? a.n0 : a.n0 * a.ldw;
    const source s = {a.w, at, a.ldw, a.n1 - a.n0, k0, k1};
    weights(a.format, a.wparts, a.in_out, &s, packed_panels, panel);
    // A block's sums are stored while the next block's are computed.
    for (int j = 0; j <= blocks * panels; j++) {
      if (j < blocks * panels) {
        const int b = j / panels, p = j % panels;
        const int rows = a.m - b * SIDE, cols = a.n1 - a.n0 - p * SIDE;
        const char *x =
            (const char *)a.x + b * xblock + (long)k0 / DEPTH * a.xparts * 2 * TILE;
        const char *w = packed_panels + p * panel;
        if (a.in_out)
          multiply(steps(k1 - k0), x, a.xparts, w, a.wparts, rows > 16, cols > 16, t[j & 1]);
        else
          multiply(steps(k1 - k0), w, a.wparts, x, a.xparts, cols > 16, rows > 16, t[j & 1]);
      }
      if (j > 0) {
        const int b = (j - 1) / panels, p = (j - 1) % panels;
        float *c = a.out + (long)b * SIDE * a.ldo + a.n0 + p * SIDE;
        store_block(t[(j & 1) ^ 1], !a.in_out, c, a.ldo, a.m - b * SIDE, a.n1 - a.n0 - p * SIDE,
                    a.add || k0 > 0);
      }
    }
  }
  end();
}

const product_kernels PRODUCTS = {
    .block_rows = SIDE,
    .depth = DEPTH,
    .panel_columns = SIDE,
    .share_panels = GROUP,
    .scratch_floats = GROUP * STEPS * DEPTH * SIDE,
    .pack = pack,
    .product = product,
    .few_packed = few_packed,
};
