// Products of f32 activations with weights of any format, added up in f32.
//
// product packs x into blocks of MR rows (pack), turns a panel of NR columns of the weight into f32
// (panel) and multiplies each block with it (tile), whose sums stay in registers. few_rows takes
// few rows of x: it reads each weight once and packs nothing.

#include "args.h"
#include "vector.h"

#define KB (8192 / NR) // depth of a panel, at most: its 32 KB stay in the first-level cache

// ---- reading weights: the only functions that know how a format is laid out ----

static inline float load_weight(const uint8_t *w, const int format, long i) {
  switch (format) {
  case F32: return ((const float *)w)[i];
  case BF16: {
    uint32_t u = (uint32_t)((const uint16_t *)w)[i] << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
  }
  case F16: return half_float(((const uint16_t *)w)[i]);
  }
  __builtin_unreachable(); // every format has a case above
}

// The values i to i+VL-1, which lie in one block if blocks hold more than one value.
static inline V load_weights(const uint8_t *w, const int format, long i) {
  switch (format) {
  case F32: return load((const float *)w + i);
  case BF16: return (V)(widen((const uint16_t *)w + i) << 16);
  case F16: return half_vector((const uint16_t *)w + i);
  }
  __builtin_unreachable();
}

// ---- packing ----

// one block of pack, of n rows
INLINE void pack_block(const float *rows, long ldx, const int n, int k, float *p) {
  int j = 0;
  // VL columns at a time, through transposed blocks. The columns of these may be longer than MR:
  // the next block overwrites what is too long, and the last one is copied.
  for (; j + VL <= k; j += VL) {
    float last[VL * MR + VL], *to = j + VL < k ? p + (long)j * MR : last;
#pragma GCC unroll 4
    for (int g = 0; g < MR; g += VL) {
      float t[VL][VL] __attribute__((aligned(64)));
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) *(V *)t[i] = g + i < n ? load(rows + (g + i) * ldx + j) : (V){};
      transpose(t, to + g, MR);
    }
    if (to == last) memcpy(p + (long)j * MR, last, sizeof(float) * VL * MR);
  }
  for (; j < k; j++)
    for (int i = 0; i < MR; i++) p[(long)j * MR + i] = i < n ? rows[i * ldx + j] : 0;
}

// packed[b][k][i] = x[b*MR+i][k] for the blocks b0 <= b < b1; rows beyond m are zero
static void pack(const pack_args *args) {
  const pack_args a = *args;
  for (int b = a.b0; b < a.b1; b++) {
    float *p = a.packed + (long)b * MR * a.k;
    const float *rows = a.x + (long)b * MR * a.ldx;
    if (a.m - b * MR >= MR) // a constant number of rows is faster
      pack_block(rows, a.ldx, MR, a.k, p);
    else
      pack_block(rows, a.ldx, a.m - b * MR, a.k, p);
  }
}

// bp[k][j] = w[j][k] for j < nb, k < kb, for weights stored [n, k] from value at on; columns beyond
// nb are zero
INLINE void pack_transposed(const uint8_t *w, const int format, long at, long ld, int nb, int kb,
                            float *bp) {
  if (nb < NR) memset(bp, 0, sizeof(float) * NR * kb);
  int j = 0;
  for (; j + VL <= nb; j += VL) {
    int k = 0;
    for (; k + VL <= kb; k += VL) { // a VL x VL block: convert its rows, then write its columns
      float t[VL][VL] __attribute__((aligned(64)));
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) *(V *)t[i] = load_weights(w, format, at + (j + i) * ld + k);
      transpose(t, bp + (long)k * NR + j, NR);
    }
    for (; k < kb; k++)
      for (int i = 0; i < VL; i++)
        bp[(long)k * NR + j + i] = load_weight(w, format, at + (j + i) * ld + k);
  }
  for (; j < nb; j++)
    for (int k = 0; k < kb; k++) bp[(long)k * NR + j] = load_weight(w, format, at + j * ld + k);
}

// bp[k][j] = w[k][j], the same for weights stored [k, n]
INLINE void pack_copy(const uint8_t *w, const int format, long at, long ld, int nb, int kb,
                      float *bp) {
  for (int k = 0; k < kb; k++, bp += NR)
    for (int j = 0; j < NR; j++) bp[j] = j < nb ? load_weight(w, format, at + k * ld + j) : 0;
}

// A part of a weight: nb columns from n on, kb values of each from k on.
typedef struct {
  int n, nb, k, kb;
} area;

static inline long first_value(const product_args *a, area p) {
  return a->in_out ? p.k * a->ldw + p.n : p.n * a->ldw + p.k;
}

// turns a part of the weight into f32, in a->scratch
static __attribute__((noinline)) void panel(const product_args *a, area p) {
  const long at = first_value(a, p);
  switch (a->format) {
#define X(format, values, bytes, parts) \
  case format: \
    if (a->in_out) \
      pack_copy(a->w, format, at, a->ldw, p.nb, p.kb, a->scratch); \
    else \
      pack_transposed(a->w, format, at, a->ldw, p.nb, p.kb, a->scratch); \
    break;
    FORMATS(X)
#undef X
  }
}

// ---- prefetching: the next panel's weights arrive while this panel is multiplied ----

// Prefetches bytes of memory. They may begin anywhere in a cache line, so the last byte may lie in
// one line more.
INLINE void prefetch(const uint8_t *from, long bytes) {
  for (long at = 0; at < bytes; at += 64) __builtin_prefetch(from + at, 0, 3);
  __builtin_prefetch(from + bytes - 1, 0, 3);
}

// The rows of a part of the weight, as they lie in memory.
typedef struct {
  const uint8_t *from;
  int rows;
  long bytes, apart; // of a row, and from one row to the next
} memory;

static inline memory memory_of(const product_args *a, area p) {
  return (memory){
      .from = a->w + bytes_of(a->format, first_value(a, p)),
      .rows = a->in_out ? p.kb : p.nb,
      .bytes = bytes_of(a->format, a->in_out ? p.nb : p.kb),
      .apart = bytes_of(a->format, a->ldw),
  };
}

// Prefetches share i of `of` shares. With before it also reads the byte before each row, which was
// multiplied just now: some CPUs ignore a prefetch from a page whose address they would have to
// look up.
static inline void prefetch_share(memory m, int before, int i, int of) {
  for (long r = (long)m.rows * i / of; r < (long)m.rows * (i + 1) / of; r++) {
    if (before) (void)*(volatile const uint8_t *)(m.from + r * m.apart - 1);
    prefetch(m.from + r * m.apart, m.bytes);
  }
}

// Cache lines to prefetch, a few at a time: rows of lines that lie apart.
typedef struct {
  const uint8_t *at;
  int of_row, left; // lines of a row, and those left of this one
  int at_once;
  long apart; // bytes from the end of a row to the next
} lines;

// the cache lines of m, to be prefetched in a number of steps
static inline lines lines_of(memory m, int steps) {
  const int of_row = m.bytes / 64 + 1, at_once = (m.rows * of_row + steps - 1) / steps;
  return (lines){m.from, of_row, of_row, at_once, m.apart - 64 * of_row};
}

INLINE void prefetch_lines(lines *l) {
  for (int i = 0; i < l->at_once; i++) {
    __builtin_prefetch(l->at, 0, 3);
    l->at += 64;
    if (--l->left == 0) l->at += l->apart, l->left = l->of_row;
  }
}

// ---- multiplying ----

// What the tiles of a panel have in common. A tile is c[i][j] (+)= sum over k < kb of
// ap[k][i] bp[k][j], for i < mb (at most MR) and j < nb.
typedef struct {
  int kb;
  float *bp;
  long ldc;
  int nb, add;
} tile_args;

// One step of a tile: r[i][j] += ap[i] bp[j]. With make it first reads bp from the weight.
INLINE void tile_step(const int make, const uint8_t *w, const int format, long at, long ld,
                      const float *ap, float *bp, V r[MR][2]) {
  const int AHEAD = 24; // rows
  if (make) {
    // The first panel of a call: nothing has prefetched it.
    prefetch(w + bytes_of(format, at + AHEAD * ld), bytes_of(format, NR));
    store(bp, load_weights(w, format, at));
    store(bp + VL, load_weights(w, format, at + VL));
  }
  V b0 = load(bp), b1 = load(bp + VL);
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) multiply_add(r[i], ap + i, b0, b1);
}

// A tile. With make, bp becomes the weight (stored [k, n]) on the way, which the multiply-adds
// hide; the tile then has NR columns. Lines, if there are any, are prefetched on the way.
INLINE void tile(const int make, lines *l, const uint8_t *w, const int format, long at, long ld,
                 tile_args t, const float *ap, float *c, int mb) {
  if (make) t.nb = NR; // known to the compiler
  V r[MR][2];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) r[i][0] = r[i][1] = (V){};
  for (int i = 0; i < MR && i < mb; i++) {
    __builtin_prefetch(c + i * t.ldc, 1);
    __builtin_prefetch(c + i * t.ldc + t.nb - 1, 1);
  }
  // Four steps at a time: where another program shares the core, instructions that multiply nothing
  // are expensive.
  const int deep = 4;
  int k = 0;
  for (; k + deep <= t.kb; k += deep, ap += deep * MR, t.bp += deep * NR) {
    if (l) prefetch_lines(l);
#pragma GCC unroll 4
    for (int d = 0; d < deep; d++)
      tile_step(make, w, format, at + (k + d) * ld, ld, ap + d * MR, t.bp + d * NR, r);
  }
  for (; k < t.kb; k++, ap += MR, t.bp += NR)
    tile_step(make, w, format, at + k * ld, ld, ap, t.bp, r);
  if (mb >= MR && t.nb == NR) { // a whole tile: from the registers to memory
    if (t.add)
#pragma GCC unroll 16
      for (int i = 0; i < MR; i++) {
        r[i][0] += load(c + i * t.ldc);
        r[i][1] += load(c + i * t.ldc + VL);
      }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      store(c + i * t.ldc, r[i][0]);
      store(c + i * t.ldc + VL, r[i][1]);
    }
    return;
  }
  float s[MR][NR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) store(s[i], r[i][0]), store(s[i] + VL, r[i][1]);
  for (int i = 0; i < MR && i < mb; i++, c += t.ldc)
    if (t.nb == NR) {
      store(c, load(s[i]) + (t.add ? load(c) : (V){}));
      store(c + VL, load(s[i] + VL) + (t.add ? load(c + VL) : (V){}));
    } else
      for (int j = 0; j < t.nb; j++) c[j] = s[i][j] + (t.add ? c[j] : 0);
}

static __attribute__((noinline)) void tile_of_panel(const tile_args *t, const float *ap, float *c,
                                                    int mb) {
  tile(0, 0, 0, F32, 0, 0, *t, ap, c, mb);
}

static __attribute__((noinline)) void tile_and_lines(lines *next, const tile_args *t,
                                                     const float *ap, float *c, int mb) {
  lines l = *next;
  tile(0, &l, 0, F32, 0, 0, *t, ap, c, mb);
  *next = l;
}

static __attribute__((noinline)) void tile_and_panel(const product_args *a, area p,
                                                     const tile_args *t, float *c) {
  const float *ap = a->x + (long)p.k * MR;
  switch (a->format) {
#define X(format, values, bytes, parts) \
  case format: tile(1, 0, a->w, format, first_value(a, p), a->ldw, *t, ap, c, a->m); break;
    FORMATS(X)
#undef X
  }
}

static void product(const product_args *args) {
  const product_args a = *args;
  const int blocks = (a.m + MR - 1) / MR, slices = (a.k + KB - 1) / KB;
  const int values = block_values(a.format); // a slice begins with a block
  const int depth = ((a.k + slices - 1) / slices + values - 1) / values * values;
  // With few blocks, each would prefetch so much at once that the multiply-adds wait, so the lines
  // are spread over the steps of the tiles. Measured with AVX2 only.
  const int few = VL == 8 && blocks > 1 && blocks <= 12 && depth >= 64;
  for (int k0 = 0; k0 < a.k; k0 += depth) {
    const int kb = a.k - k0 < depth ? a.k - k0 : depth;
    for (int n = a.n0; n < a.n1; n += NR) {
      const area here = {n, a.n1 - n < NR ? a.n1 - n : NR, k0, kb};
      const int make = a.in_out && here.nb == NR; // the first tile reads the weight itself
      if (!make) panel(args, here);
      const int along = n + NR < a.n1, more = along || k0 + kb < a.k; // the next panel
      area next = {along ? n + NR : a.n0, NR, along ? k0 : k0 + kb, depth};
      if (a.n1 - next.n < NR) next.nb = a.n1 - next.n;
      if (a.k - next.k < depth) next.kb = a.k - next.k;
      const int before = along ? a.in_out || k0 > 0 : !a.in_out;
      const memory soon = memory_of(args, next);
      lines l;
      if (few) l = lines_of(soon, (blocks - make) * (kb / 4));
      const tile_args t = {kb, a.scratch, a.ldo, here.nb, a.add || k0 > 0};
      for (int b = 0; b < blocks; b++) {
        if (more && !few) prefetch_share(soon, before, b, blocks);
        const float *ap = a.x + (long)b * MR * a.k + (long)k0 * MR;
        float *c = a.out + (long)b * MR * a.ldo + n;
        if (make && b == 0)
          tile_and_panel(args, here, &t, c);
        else if (more && few)
          tile_and_lines(&l, &t, ap, c, a.m - b * MR);
        else
          tile_of_panel(&t, ap, c, a.m - b * MR);
      }
    }
  }
}

// ---- few rows ----

// One pass over the weights' rows (stored [n, k]) for m <= 4 rows of x. Each row of weights is read
// from front to back and prefetched.
INLINE void dot_rows(const int m, const int format, const product_args a) {
  // Sums kept apart, because one would wait for itself. As many for each m, so that the bits of a
  // row do not depend on m.
  const int APART = VL == 8 ? 2 : 4;
  const int AHEAD = 8192; // bytes
  const long bytes = bytes_of(format, APART * VL);
  for (int n = a.n0; n < a.n1; n++) {
    V s[4][4];
    for (int i = 0; i < m; i++)
      for (int p = 0; p < 4; p++) s[i][p] = (V){};
    long at = (long)n * a.ldw;
    const uint8_t *next = a.w + bytes_of(format, at) + AHEAD;
    int j = 0;
    for (; j + APART * VL <= a.k; j += APART * VL, at += APART * VL) {
      for (int line = 0; line < bytes; line += 64) __builtin_prefetch(next + line, 0, 2);
      next += bytes;
      for (int p = 0; p < APART; p++) {
        V b = load_weights(a.w, format, at + p * VL);
        for (int i = 0; i < m; i++) s[i][p] += load(a.x + i * a.ldx + j + p * VL) * b;
      }
    }
    for (; j + VL <= a.k; j += VL, at += VL)
      for (int i = 0; i < m; i++)
        s[i][0] += load(a.x + i * a.ldx + j) * load_weights(a.w, format, at);
    for (int i = 0; i < m; i++) {
      float r = sum((s[i][0] + s[i][1]) + (s[i][2] + s[i][3]));
      for (int t = j; t < a.k; t++)
        r += a.x[i * a.ldx + t] * load_weight(a.w, format, at + t - j);
      a.out[i * a.ldo + n] = (a.add ? a.out[i * a.ldo + n] : 0) + r;
    }
  }
}

// Rows of weights at a time: with four rows of x their sums fit into registers, of which AVX2 has
// 16.
enum { WR = VL == 8 ? 3 : 4 };

// t[4i+r] = sum of x[i] w[r] over the whole vectors of k, for four rows of x and WR rows of
// weights, which begin at the values at[r]. Returns the number of values summed. On the way up to
// two more rows of weights are prefetched, at a pace that memory keeps. Not inlined, because sums
// and weights need all registers.
#define SUMS(format, values, bytes, parts) \
  static __attribute__((noinline)) int sums_##format( \
      const float *const x[4], int k, const uint8_t *w, const long at[WR], \
      const uint8_t *const next[2], float t[16]) { \
    int j = 0; \
    V s[16] = {}; \
    for (; j + VL <= k; j += VL) { \
      if (next[0]) __builtin_prefetch(next[0] + bytes_of(format, j), 0, 2); \
      if (next[1]) __builtin_prefetch(next[1] + bytes_of(format, j), 0, 2); \
      V b[WR]; \
      _Pragma("GCC unroll 4") for (int r = 0; r < WR; r++) \
        b[r] = load_weights(w, format, at[r] + j); \
      _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { \
        V v = load(x[i] + j); \
        _Pragma("GCC unroll 4") for (int r = 0; r < WR; r++) s[4 * i + r] += v * b[r]; \
      } \
    } \
    for (int i = 0; i < 16; i += VL) store(t + i, sums(s + i)); \
    return j; \
  }
FORMATS(SUMS)
#undef SUMS

// Up to 16 rows of x, four at a time, times WR rows of weights (stored [n, k]) at a time. The
// weights come from memory for the first four rows; each four prefetch a part of what follows.
INLINE void dot_4rows(const int format, const product_args a) {
  const int passes = (a.m + 3) / 4;
  for (int n = a.n0; n < a.n1; n += WR)
    for (int p = 0; p < passes; p++) {
      const int m4 = a.m - 4 * p < 4 ? a.m - 4 * p : 4, wr = a.n1 - n < WR ? a.n1 - n : WR;
      const float *x[4];
      long at[WR];
      const uint8_t *next[2];
      for (int r = 0; r < WR; r++) at[r] = (n + (r < wr ? r : 0)) * a.ldw;
      for (int i = 0; i < 4; i++) x[i] = a.x + (4 * p + (i < m4 ? i : 0)) * a.ldx;
      for (int i = 0; i < 2; i++) {
        const int r = p + i * passes;
        next[i] = r < WR ? a.w + bytes_of(format, (n + 2 * WR + r) * a.ldw) : 0;
      }
      float t[16] __attribute__((aligned(64)));
      int j = 0;
      switch (format) {
#define X(name, values, bytes, parts) \
  case name: j = sums_##name(x, a.k, a.w, at, next, t); break;
        FORMATS(X)
#undef X
      }
      for (int q = j; q < a.k; q++)
        for (int i = 0; i < 4; i++)
          for (int r = 0; r < WR; r++) t[4 * i + r] += x[i][q] * load_weight(a.w, format, at[r] + q);
      for (int i = 0; i < m4; i++) {
        float *to = a.out + (4 * p + i) * a.ldo + n;
        if (a.add)
          for (int r = 0; r < wr; r++) t[4 * i + r] += to[r];
        if (wr == WR) // a constant size needs no call
          memcpy(to, t + 4 * i, sizeof(float) * WR);
        else
          memcpy(to, t + 4 * i, sizeof(float) * wr);
      }
    }
}

// m rows of x times wide vectors of columns, from n on, of weights stored [k, n]
INLINE void band(const int m, const int wide, const int format, int n, const product_args a) {
  const int AHEAD = 16; // rows
  V s[4][8];
  for (int i = 0; i < m; i++)
    for (int v = 0; v < wide; v++) s[i][v] = (V){};
  for (int t = 0; t < a.k; t++) {
    long at = t * a.ldw + n;
    prefetch(a.w + bytes_of(format, at + AHEAD * a.ldw), bytes_of(format, wide * VL));
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) {
      V b = load_weights(a.w, format, at + v * VL);
      for (int i = 0; i < m; i++) s[i][v] += splat(a.x[i * a.ldx + t]) * b;
    }
  }
  for (int i = 0; i < m; i++)
    for (int v = 0; v < wide; v++) {
      float *to = a.out + i * a.ldo + n + v * VL;
      store(to, s[i][v] + (a.add ? load(to) : (V){}));
    }
}

// m <= 4 rows of x times weights stored [k, n]
INLINE void columns(const int m, const int format, const product_args a) {
  const int WIDE = m <= 2 ? 8 : 4;
  int n = a.n0;
  for (; n + WIDE * VL <= a.n1; n += WIDE * VL) band(m, WIDE, format, n, a);
  for (; n + VL <= a.n1; n += VL) band(m, 1, format, n, a);
  for (; n < a.n1; n++)
    for (int i = 0; i < m; i++) {
      float r = 0;
      for (int t = 0; t < a.k; t++)
        r += a.x[i * a.ldx + t] * load_weight(a.w, format, t * a.ldw + n);
      a.out[i * a.ldo + n] = r + (a.add ? a.out[i * a.ldo + n] : 0);
    }
}

INLINE void few_rows_of(const int format, const product_args a) {
#define ROWS(m) \
  case m: \
    if (a.in_out) \
      columns(m, format, a); \
    else \
      dot_rows(m, format, a); \
    break;
  switch (a.m) {
    ROWS(1) ROWS(2) ROWS(3) ROWS(4)
  default: dot_4rows(format, a); // never in_out
  }
#undef ROWS
}

static void few_rows(const product_args *args) {
  switch (args->format) {
#define X(format, values, bytes, parts) \
  case format: few_rows_of(format, *args); break;
    FORMATS(X)
#undef X
  }
}

// n rounds of multiply-adds in registers, PEAK_FLOPS each: the most that the CPU does
#define PEAK_FLOPS (4 * MR * VL)
static float peak(long n, const float *x) {
  V r[MR][2], a = load(x), b = load(x + VL);
  for (int i = 0; i < MR; i++) r[i][0] = a, r[i][1] = b;
  for (; n > 0; n--) {
    // Otherwise the compiler would compute all rounds once.
#ifdef __aarch64__
    __asm__ volatile("" : "+w"(a), "+w"(b));
#else
    __asm__ volatile("" : "+v"(a), "+v"(b));
#endif
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      r[i][0] += a * b;
      r[i][1] += b * b;
    }
  }
  V s = {};
  for (int i = 0; i < MR; i++) s += r[i][0] + r[i][1];
  return sum(s);
}
