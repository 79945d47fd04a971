// Products of f32 activations with weights of any format, added up in f32.
//
// product packs x into blocks of MR rows (pack), turns a panel of NR columns of the weight into f32
// (panel) and multiplies each block with it (tile), whose sums stay in registers. few_rows takes 1 to
// 4 rows of x: it reads each weight once and packs nothing. Both add up the values of a result in the
// same order (slice_depth), so a row of the result does not depend on the number of rows.

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

// Values of a row that read_block reads: a vector, or two of them in pairs.
static inline int block_depth(const int format) { return format == BF16 ? 2 * VL : VL; }

// out[i] = value at+i of each of VL rows, for i < block_depth(format)
INLINE void read_block(const uint8_t *w, const int format, long at, long ld, V out[]) {
  if (format == F32 || format == BF16) {
    V words[VL];
    read_columns(w + bytes_of(format, at), bytes_of(format, ld), words);
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) {
      if (format == F32) {
        out[i] = words[i];
        continue;
      }
      out[2 * i] = (V)((U)words[i] << 16);
      out[2 * i + 1] = (V)((U)words[i] & 0xffff0000);
    }
    return;
  }
  float t[VL][VL] __attribute__((aligned(64)));
#pragma GCC unroll 16
  for (int i = 0; i < VL; i++) *(V *)t[i] = load_weights(w, format, at + i * ld);
  read_columns((const uint8_t *)t, sizeof t[0], out);
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
      transpose(t, sizeof t[0], to + g, MR);
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
  const int deep = block_depth(format);
  int j = 0;
  for (; j + VL <= nb; j += VL) {
    int k = 0;
    for (; k + deep <= kb; k += deep) {
      V block[2 * VL];
      read_block(w, format, at + j * ld + k, ld, block);
#pragma GCC unroll 32
      for (int i = 0; i < deep; i++) store(bp + (long)(k + i) * NR + j, block[i]);
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

// prefetches the next of them into the first-level cache, or the second-level one
INLINE void prefetch_lines(lines *l, const int first_level) {
  for (int i = 0; i < l->at_once; i++) {
    if (first_level)
      __builtin_prefetch(l->at, 0, 3);
    else
      __builtin_prefetch(l->at, 0, 2);
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
    if (l) prefetch_lines(l, 1);
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

// The depth of a slice. A result is the sum of a slice's values from first to last, to which that of
// the next slice is added.
static int slice_depth(const product_args *a) {
  const int slices = (a->k + KB - 1) / KB;
  const int values = block_values(a->format); // a slice begins with a block
  return ((a->k + slices - 1) / slices + values - 1) / values * values;
}

static void product(const product_args *args) {
  const product_args a = *args;
  const int blocks = (a.m + MR - 1) / MR, depth = slice_depth(args);
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

// What product computes, for 1 to 4 rows of x that are not packed. Each weight is read once.

// Values of a row of weights that are read at a time: 64 bytes of them.
static inline int line_values(const int format) { return format == F32 ? 16 : 32; }

// t[k][j] = value k of row j of weights, for the values of a line of wide vectors of rows. A word of
// BF16 holds two values. On the way the lines behind these in their rows are prefetched into the
// first-level cache, and as many lines from next on, apart bytes apart, into the second-level one.
INLINE void transpose_line(const int wide, const int format, const uint8_t *w, long at, long ld,
                           float *t, const uint8_t *next, long apart) {
  const int deep = block_depth(format), lines = VL * deep / line_values(format); // of a block
  for (int v = 0; v < wide; v++, at += VL * ld)
    for (int k = 0; k < line_values(format); k += deep, next += lines * apart) {
      const uint8_t *behind = w + bytes_of(format, at + k / deep * lines * ld) + 64;
#pragma GCC unroll 16
      for (int i = 0; i < lines; i++) {
        __builtin_prefetch(next + i * apart, 0, 2);
        __builtin_prefetch(behind + i * bytes_of(format, ld), 0, 3);
      }
      float *to = t + (format == BF16 ? k / 2 : k) * wide * VL + v * VL;
      if (format == F32 || format == BF16) { // words as they lie in memory
        transpose(w + bytes_of(format, at + k), bytes_of(format, ld), to, wide * VL);
        continue;
      }
      float c[VL][VL] __attribute__((aligned(64)));
      for (int i = 0; i < VL; i++) *(V *)c[i] = load_weights(w, format, at + i * ld + k);
      transpose(c, sizeof c[0], to, wide * VL);
    }
}

// s[r][v] += x[r] times the values of a line
INLINE void add_line(const int m, const int wide, const int format, const float *x, long ldx,
                     const float *t, V s[4][8]) {
  V sum[4][8];
#pragma GCC unroll 4
  for (int r = 0; r < m; r++)
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) sum[r][v] = s[r][v];
  for (int k = 0; k < line_values(format); k += 1 + (format == BF16), t += wide * VL)
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) {
      const V word = load(t + v * VL);
      const V even = format == BF16 ? (V)((U)word << 16) : word;
      const V odd = (V)((U)word & 0xffff0000);
#pragma GCC unroll 4
      for (int r = 0; r < m; r++) {
        sum[r][v] += x[r * ldx + k] * even;
        if (format == BF16) sum[r][v] += x[r * ldx + k + 1] * odd;
      }
    }
#pragma GCC unroll 4
  for (int r = 0; r < m; r++)
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) s[r][v] = sum[r][v];
}

// writes the sums of a slice to out, or adds them
INLINE void store_few(const int m, const int wide, const product_args *a, area p, V s[4][8]) {
#pragma GCC unroll 4
  for (int r = 0; r < m; r++)
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) {
      float *to = a->out + r * a->ldo + p.n + v * VL;
      const int n = wide > 1 ? VL : p.nb;
      store_n(to, s[r][v] + (a->add || p.k > 0 ? load_n(to, n) : (V){}), n);
    }
}

// out[m][n] of m rows of x and of the rows of weights (stored [n, k]) of a part: wide vectors of them
// or, if wide is 1, a vector or less. Every sum is added up in k's order, as in a tile.
INLINE void few_of_rows(const int m, const int wide, const int format, const product_args *args,
                        area p) {
  const product_args a = *args;
  const int line = line_values(format);
  const long at = first_value(args, p), row = bytes_of(format, a.ldw);
  const float *x = a.x + p.k;
  float t[32 * 8 * VL] __attribute__((aligned(64)));
  V s[4][8] = {};
  int k = 0;
  if (wide > 1 || p.nb == VL) {
    // Long rows are prefetched along the row. Of short ones those of the next part.
    const int LONG = 4096, AHEAD = 512; // bytes
    const uint8_t *next = a.w + bytes_of(format, at) + (row > LONG ? AHEAD : p.nb * row);
    if (row <= LONG) next += (p.nb - 1) * bytes_of(format, p.k);
    const long apart = row > LONG ? row : 64;
    for (; k + line <= p.kb; k += line, next += row > LONG ? 64 : 64 * p.nb) {
      transpose_line(wide, format, a.w, at + k, a.ldw, t, next, apart);
      add_line(m, wide, format, x + k, a.ldx, t, s);
    }
  }
  for (; k < p.kb; k++)
    for (int v = 0; v < wide; v++) {
      V b = {};
      for (int i = 0; i < (wide > 1 ? VL : p.nb); i++)
        b[i] = load_weight(a.w, format, at + (v * VL + i) * a.ldw + k);
      for (int r = 0; r < m; r++) s[r][v] += x[r * a.ldx + k] * b;
    }
  store_few(m, wide, args, p, s);
}

// The same for weights stored [k, n].
INLINE void few_of_columns(const int m, const int wide, const int format, const product_args *args,
                           area p) {
  const product_args a = *args;
  const int AHEAD = 16; // rows
  const float *x = a.x + p.k;
  V s[4][8] = {};
  long at = first_value(args, p);
  for (int k = 0; k < p.kb; k++, at += a.ldw) {
    prefetch(a.w + bytes_of(format, at + AHEAD * a.ldw), bytes_of(format, wide * VL));
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) {
      V b = {};
      if (wide > 1 || p.nb == VL)
        b = load_weights(a.w, format, at + v * VL);
      else
        for (int i = 0; i < p.nb; i++) b[i] = load_weight(a.w, format, at + i);
#pragma GCC unroll 4
      for (int r = 0; r < m; r++) s[r][v] += x[r * a.ldx + k] * b;
    }
  }
  store_few(m, wide, args, p, s);
}

INLINE void few_rows_of(const int m, const int format, const product_args *args) {
  // Vectors of sums, as many as registers hold: a sum waits for the one before it. A single row
  // takes the widest first, then what is left.
  const int rows = m <= 3 ? 4 : 2, columns = m <= 2 ? 8 : 4, widest = m == 1 && VL < 16 ? 8 : rows;
  const product_args a = *args;
  const int depth = slice_depth(args), wide = VL * (a.in_out ? columns : rows);
  for (int n = a.n0, nb; n < a.n1; n += nb) {
    const int left = a.n1 - n;
    nb = left >= wide ? wide : left < VL ? left : VL;
    if (!a.in_out && left >= widest * VL) nb = widest * VL;
    for (int k = 0; k < a.k; k += depth) {
      const area here = {n, nb, k, a.k - k < depth ? a.k - k : depth};
      if (a.in_out && nb == wide)
        few_of_columns(m, columns, format, args, here);
      else if (a.in_out)
        few_of_columns(m, 1, format, args, here);
      else if (nb == widest * VL)
        few_of_rows(m, widest, format, args, here);
      else if (nb == wide)
        few_of_rows(m, rows, format, args, here);
      else
        few_of_rows(m, 1, format, args, here);
    }
  }
}

static void few_rows(const product_args *args) {
#define ROWS(m, format) \
  case m: few_rows_of(m, format, args); break;
  switch (args->format) {
#define X(format, values, bytes, parts) \
  case format: \
    switch (args->m) { ROWS(1, format) ROWS(2, format) ROWS(3, format) ROWS(4, format) } \
    break;
    FORMATS(X)
#undef X
  }
#undef ROWS
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
