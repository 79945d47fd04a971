// The kernels, written once with vector extensions. A file that includes this one has chosen an instruction set and defined
// K(name) (the function's name for that set), VL (floats in a vector), MR (rows of a tile), half(p) (VL halfs as floats), half1(h)
// (one), sum(v) (of a vector's floats), transpose (of a block, its columns written one after the other), perhaps widen(p) (VL
// uint16_t as U), and EVEN and ODD (the places of those numbers in two vectors).
// Every function is the loop in its comment; its plain twin in Go is the oracle of the tests. No function allocates or fails.

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "weight.h"

#define NR (2 * VL) // columns of a tile: two vectors
#define KB (8192 / NR) // depth of a panel, at most: its 32 KB stay in the first-level cache

typedef float V __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t U __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint16_t H __attribute__((vector_size(VL * 2), aligned(2), may_alias));

static inline V load(const float *p) { return *(const V *)p; }
static inline void store(float *p, V v) { *(V *)p = v; }
static inline V splat(float x) { return x - (V){}; }
#ifndef widen
#define widen(p) __builtin_convertvector(*(const H *)(p), U)
#endif
static inline V bfloat(const uint16_t *p) { return (V)(widen(p) << 16); }

static inline V pick(I where, V yes, V no) { return (V)((where & (I)yes) | (~where & (I)no)); }

static inline I first(int n) { return (I){EVEN} < 2 * n - (I){}; } // all bits of the first n numbers

static inline V some(const float *p, int n) { // the first n floats, zeros behind them
  if (n >= VL) return load(p);
  V v = {};
  memcpy(&v, p, sizeof(float) * n);
  return v;
}

#ifdef __clang__
#define take(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define take(a, b, ...) __builtin_shuffle(a, b, (I){__VA_ARGS__})
#endif

// the sum of each of VL vectors: sums of neighbours side by side, until one vector is left
static inline V sums(const V *v) {
  V s[VL];
  for (int i = 0; i < VL; i++) s[i] = v[i];
#pragma GCC unroll 4
  for (int n = VL / 2; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) s[i] = take(s[2 * i], s[2 * i + 1], EVEN) + take(s[2 * i], s[2 * i + 1], ODD);
  return s[0];
}

static inline void put(float *p, V v, int n) { // the first n floats of v
  if (n >= VL)
    store(p, v);
  else
    memcpy(p, &v, sizeof(float) * n);
}

// e^x to about 1e-7 relative: x = n ln2 + r, |r| <= ln2/2, and a polynomial in r (Cephes' expf).
static inline V vexp(V x) {
  x = pick(x < -87.f, splat(-87.f), x);
  x = pick(x > 88.f, splat(88.f), x);
  V n = x * 1.44269504f + 12582912.f; // 1.5 * 2^23: the low bits now hold the rounded integer
  I k = (I)n - 0x4b400000;
  n -= 12582912.f;
  V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  return p * (V)((k + 127) << 23);
}

// tanh(y) = 1 - 2 / (e^2y + 1)
static inline V vtanh(V y) { return 1.f - 2.f / (vexp(2.f * y) + 1.f); }

// the products of a and b, added up in as many sums as a vector has floats
static inline V products(const float *a, const float *b, int n) {
  V s = {};
  int i = 0;
  for (; i + VL <= n; i += VL) s += load(a + i) * load(b + i);
  if (i < n) s += some(a + i, n - i) * some(b + i, n - i);
  return s;
}

static inline float dot(const float *a, const float *b, int n) { return sum(products(a, b, n)); }

static inline float scalar(const void *w, int dtype, long i) {
  if (dtype == F32) return ((const float *)w)[i];
  if (dtype == BF16) {
    uint32_t u = (uint32_t)((const uint16_t *)w)[i] << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
  }
  return half1(((const uint16_t *)w)[i]);
}

static inline V vector(const void *w, int dtype, long i) {
  if (dtype == F32) return load((const float *)w + i);
  if (dtype == BF16) return bfloat((const uint16_t *)w + i);
  return half((const uint16_t *)w + i);
}

// ---- products -----------------------------------------------------------------------------------------------------------

// one block of K(pack), of n rows
static inline __attribute__((always_inline)) void pack_block(const float *rows, long ldx, const int n, int k, float *p) {
  int j = 0;
  for (; j + VL <= k; j += VL) { // VL columns at a time, through transposed blocks, whose columns are longer than MR: the next one overwrites that
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

// ap[b][k][i] = x[b*MR+i][k] for the blocks b0 <= b < b1 of MR rows; rows beyond m are zero
void K(pack)(const float *x, long ldx, int m, int k, int b0, int b1, float *ap) {
  for (int b = b0; b < b1; b++) {
    float *p = ap + (long)b * MR * k;
    const float *rows = x + (long)b * MR * ldx;
    if (m - b * MR >= MR) // a number that is known when this is compiled
      pack_block(rows, ldx, MR, k, p);
    else
      pack_block(rows, ldx, m - b * MR, k, p);
  }
}

// bp[k][j] = w[j][k] for j < nb, k < kb (weights stored [out, in]); columns beyond nb are zero
static inline __attribute__((always_inline)) void turned(const void *w, const int dtype, long ld, int nb, int kb, float *bp) {
  if (nb < NR) memset(bp, 0, sizeof(float) * NR * kb);
  int j = 0;
  for (; j + VL <= nb; j += VL) {
    int k = 0;
    for (; k + VL <= kb; k += VL) { // a VL x VL block: convert its rows, then write its columns
      float t[VL][VL] __attribute__((aligned(64)));
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) *(V *)t[i] = vector(w, dtype, (j + i) * ld + k);
      transpose(t, bp + (long)k * NR + j, NR);
    }
    for (; k < kb; k++)
      for (int i = 0; i < VL; i++) bp[(long)k * NR + j + i] = scalar(w, dtype, (j + i) * ld + k);
  }
  for (; j < nb; j++)
    for (int k = 0; k < kb; k++) bp[(long)k * NR + j] = scalar(w, dtype, j * ld + k);
}

// bp[k][j] = w[k][j] (weights stored [in, out]); columns beyond nb are zero
static inline __attribute__((always_inline)) void straight(const void *w, const int dtype, long ld, int nb, int kb, float *bp) {
  for (int k = 0; k < kb; k++, bp += NR)
    for (int j = 0; j < NR; j++) bp[j] = j < nb ? scalar(w, dtype, k * ld + j) : 0;
}

static __attribute__((noinline)) void panel(const void *w, int dtype, int in_out, long ld, int nb, int kb, float *bp) {
#define PANEL(dtype) in_out ? straight(w, dtype, ld, nb, kb, bp) : turned(w, dtype, ld, nb, kb, bp)
  dtype == F32 ? (PANEL(F32)) : dtype == BF16 ? (PANEL(BF16)) : (PANEL(F16));
#undef PANEL
}

// r[0] += *a b0, r[1] += *a b1. Written for the CPU, because gcc broadcasts the values of all rows first and then lacks registers for the sums.
static inline __attribute__((always_inline)) void multiply_add(V r[2], const float *a, V b0, V b1) {
#ifdef __x86_64__
  V all;
  __asm__("vbroadcastss %3, %2\n\tvfmadd231ps %2, %4, %0\n\tvfmadd231ps %2, %5, %1" : "+v"(r[0]), "+v"(r[1]), "=&v"(all) : "m"(*a), "v"(b0), "v"(b1));
#else
  r[0] += *a * b0;
  r[1] += *a * b1;
#endif
}

// asks for bytes of memory. A file's weights begin anywhere in a line, so that they end in one more than they fill.
static inline __attribute__((always_inline)) void ask_for(const void *from, long bytes) {
  for (long at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at, 0, 3);
  __builtin_prefetch((const char *)from + bytes - 1, 0, 3);
}

// one step of a tile: r[i][j] += ap[i] bp[j]
static inline __attribute__((always_inline)) void step(const int make, const void *w, const int dtype, long at, long ld, const float *ap, float *bp, V r[MR][2]) {
  const int AHEAD = 24; // rows
  if (make) {
    ask_for((const char *)w + size(dtype) * (at + AHEAD * ld), NR * size(dtype)); // the first panel of a share was asked for by nobody
    store(bp, vector(w, dtype, at));
    store(bp + VL, vector(w, dtype, at + VL));
  }
  V b0 = load(bp), b1 = load(bp + VL);
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) multiply_add(r[i], ap + i, b0, b1);
}

// lines of memory to ask for, so many each time: rows of some lines that lie apart
struct lines {
  const char *at;
  int of_row, left, times; // lines of a row, and of this one; at a time
  long apart;              // from the end of a row to the next
};

static inline __attribute__((always_inline)) void ask_lines(struct lines *l) {
  for (int i = 0; i < l->times; i++) {
    __builtin_prefetch(l->at, 0, 3);
    l->at += 64;
    if (--l->left == 0) l->at += l->apart, l->left = l->of_row;
  }
}

// c[i][j] (+)= sum over k of ap[k][i] bp[k][j], for i < mb, j < nb; with make, bp becomes w (stored [in, out]) on the way, which the
// multiply-adds hide; lines are asked for meanwhile
static inline __attribute__((always_inline)) void tile(const int make, struct lines *lines, const void *w, const int dtype, long ld, int kb, const float *ap, float *bp, float *c, long ldc, int mb, int nb, int add) {
  V r[MR][2];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) r[i][0] = r[i][1] = (V){};
  for (int i = 0; i < MR && i < mb; i++) {
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + nb - 1, 1);
  }
  const int deep = 4; // steps at a time: where another program has half of the core's instructions, each that multiplies nothing costs
  int k = 0;
  for (; k + deep <= kb; k += deep, ap += deep * MR, bp += deep * NR) {
    if (lines) ask_lines(lines);
#pragma GCC unroll 4
    for (int d = 0; d < deep; d++) step(make, w, dtype, (k + d) * ld, ld, ap + d * MR, bp + d * NR, r);
  }
  for (; k < kb; k++, ap += MR, bp += NR) step(make, w, dtype, k * ld, ld, ap, bp, r);
  if (mb >= MR && nb == NR) { // from the registers to where it belongs
    if (add)
#pragma GCC unroll 16
      for (int i = 0; i < MR; i++) r[i][0] += load(c + i * ldc), r[i][1] += load(c + i * ldc + VL);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) store(c + i * ldc, r[i][0]), store(c + i * ldc + VL, r[i][1]);
    return;
  }
  float t[MR][NR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) store(t[i], r[i][0]), store(t[i] + VL, r[i][1]);
  for (int i = 0; i < MR && i < mb; i++, c += ldc)
    if (nb == NR) {
      store(c, load(t[i]) + (add ? load(c) : (V){}));
      store(c + VL, load(t[i] + VL) + (add ? load(c + VL) : (V){}));
    } else
      for (int j = 0; j < nb; j++) c[j] = t[i][j] + (add ? c[j] : 0);
}

static __attribute__((noinline)) void tile_of_panel(int kb, const float *ap, float *bp, float *c, long ldc, int mb, int nb, int add) {
  tile(0, 0, 0, F32, 0, kb, ap, bp, c, ldc, mb, nb, add);
}

static __attribute__((noinline)) void tile_and_lines(struct lines *lines, int kb, const float *ap, float *bp, float *c, long ldc, int mb, int nb, int add) {
  struct lines l = *lines;
  tile(0, &l, 0, F32, 0, kb, ap, bp, c, ldc, mb, nb, add);
  *lines = l;
}

static __attribute__((noinline)) void tile_and_panel(const void *w, int dtype, long ld, int kb, const float *ap, float *bp, float *c, long ldc, int mb, int add) {
  if (dtype == F32)
    tile(1, 0, w, F32, ld, kb, ap, bp, c, ldc, mb, NR, add);
  else if (dtype == BF16)
    tile(1, 0, w, BF16, ld, kb, ap, bp, c, ldc, mb, NR, add);
  else
    tile(1, 0, w, F16, ld, kb, ap, bp, c, ldc, mb, NR, add);
}

// Asks for share i of a panel's weights: the outputs n to n+nb of the inputs k0 to k0+kb. Of each row it reads what lies before,
// where that has been multiplied just now: some CPUs ask for nothing on a page that they have to look up first.
static inline void fetch(const void *w, int dtype, int in_out, long ld, int n, int nb, int k0, int kb, int before, int i, int of) {
  int rows = in_out ? kb : nb;
  long bytes = (long)(in_out ? nb : kb) * size(dtype);
  const char *from = (const char *)w + size(dtype) * (in_out ? k0 * ld + n : n * ld + k0);
  for (long r = (long)rows * i / of; r < (long)rows * (i + 1) / of; r++) {
    if (before) (void)*(volatile const char *)(from + r * ld * size(dtype) - 1);
    ask_for(from + r * ld * size(dtype), bytes);
  }
}

// The same weights as lines to be asked for in so many steps of a tile's loop.
static inline struct lines paced(const void *w, int dtype, int in_out, long ld, int n, int nb, int k0, int kb, int steps) {
  int rows = in_out ? kb : nb, of_row = (in_out ? nb : kb) * size(dtype) / 64 + 1;
  const char *from = (const char *)w + size(dtype) * (in_out ? k0 * ld + n : n * ld + k0);
  return (struct lines){from, of_row, of_row, (rows * of_row + steps - 1) / steps, ld * size(dtype) - 64 * of_row};
}

// c[m][n] (+)= sum over k of x[m][k] w(k, n) for the columns n0 <= n < n1; ap is x packed, bp room for one panel
void K(product)(const float *ap, int m, int k, const void *w, int dtype, int in_out, long ld, int n0, int n1, float *c, long ldc, int add, float *bp) {
  const int blocks = (m + MR - 1) / MR, slices = (k + KB - 1) / KB, depth = (k + slices - 1) / slices;
  // Of few blocks each would ask for so much at once that the multiply-adds wait. Measured with AVX2 alone.
  const int few = VL == 8 && blocks > 1 && blocks <= 12 && depth >= 64;
  for (int k0 = 0; k0 < k; k0 += depth) {
    int kb = k - k0 < depth ? k - k0 : depth;
    for (int n = n0; n < n1; n += NR) {
      int nb = n1 - n < NR ? n1 - n : NR;
      const void *from = (const char *)w + size(dtype) * (in_out ? k0 * ld + n : n * ld + k0);
      const int on_the_way = in_out && nb == NR;
      if (!on_the_way) panel(from, dtype, in_out, ld, nb, kb, bp);
      const int along = n + NR < n1, more = along || k0 + kb < k; // where the next panel is, whose weights arrive meanwhile
      const int next_n = along ? n + NR : n0, next_k = along ? k0 : k0 + kb;
      const int next_nb = n1 - next_n < NR ? n1 - next_n : NR, next_kb = k - next_k < depth ? k - next_k : depth;
      struct lines lines;
      if (few) lines = paced(w, dtype, in_out, ld, next_n, next_nb, next_k, next_kb, (blocks - on_the_way) * (kb / 4));
      for (int b = 0; b < blocks; b++) {
        if (more && !few) fetch(w, dtype, in_out, ld, next_n, next_nb, next_k, next_kb, along ? in_out || k0 > 0 : !in_out, b, blocks);
        const float *a = ap + (long)b * MR * k + (long)k0 * MR;
        float *to = c + (long)b * MR * ldc + n;
        if (on_the_way && b == 0)
          tile_and_panel(from, dtype, ld, kb, a, bp, to, ldc, m, add || k0 > 0);
        else if (more && few)
          tile_and_lines(&lines, kb, a, bp, to, ldc, m - b * MR, nb, add || k0 > 0);
        else
          tile_of_panel(kb, a, bp, to, ldc, m - b * MR, nb, add || k0 > 0);
      }
    }
  }
}

// one pass over the weights' rows for m rows of x; each row of weights is read front to back, and asked for well before
static inline __attribute__((always_inline)) void rows(const int m, const float *x, long ldx, int k, const void *w, const int dtype, long ld, int n0, int n1, float *c, long ldc, int add) {
  const int APART = VL == 8 ? 2 : 4, AHEAD = 8192; // sums kept apart, for one would wait for itself: as many for each m, so that bits are the same; bytes
  for (int n = n0; n < n1; n++) {
    V s[4][4];
    for (int i = 0; i < m; i++)
      for (int a = 0; a < 4; a++) s[i][a] = (V){};
    long at = (long)n * ld;
    const char *next = (const char *)w + at * size(dtype) + AHEAD;
    int j = 0;
    for (; j + APART * VL <= k; j += APART * VL, at += APART * VL) {
      for (int line = 0; line < APART * VL * size(dtype); line += 64) __builtin_prefetch(next + line, 0, 2);
      next += APART * VL * size(dtype);
      for (int a = 0; a < APART; a++) {
        V b = vector(w, dtype, at + a * VL);
        for (int i = 0; i < m; i++) s[i][a] += load(x + i * ldx + j + a * VL) * b;
      }
    }
    for (; j + VL <= k; j += VL, at += VL)
      for (int i = 0; i < m; i++) s[i][0] += load(x + i * ldx + j) * vector(w, dtype, at);
    for (int i = 0; i < m; i++) {
      float r = sum((s[i][0] + s[i][1]) + (s[i][2] + s[i][3]));
      for (int t = j; t < k; t++) r += x[i * ldx + t] * scalar(w, dtype, at + t - j);
      c[i * ldc + n] = (add ? c[i * ldc + n] : 0) + r;
    }
  }
}

enum { WR = VL == 8 ? 3 : 4 }; // rows of weights at a time: with four rows of x their sums are in registers, of which AVX2 has sixteen

// t[4i+r] = sum of x[i] w[r] over the whole vectors of k, for four rows of x and WR of weights; meanwhile up to two more rows of weights
// are asked for, at a pace that memory keeps. Returns where it ended. It is no part of what calls it: sums and weights want all registers.
#define SUMS(name, dtype) \
  static __attribute__((noinline)) int name(const float *const x[4], int k, const void *const w[WR], const void *const next[2], float t[16]) { \
    int j = 0; \
    V s[16] = {}; \
    for (; j + VL <= k; j += VL) { \
      if (next[0]) __builtin_prefetch((const char *)next[0] + j * size(dtype), 0, 2); \
      if (next[1]) __builtin_prefetch((const char *)next[1] + j * size(dtype), 0, 2); \
      V b[WR]; \
      _Pragma("GCC unroll 4") for (int r = 0; r < WR; r++) b[r] = vector(w[r], dtype, j); \
      _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { \
        V v = load(x[i] + j); \
        _Pragma("GCC unroll 4") for (int r = 0; r < WR; r++) s[4 * i + r] += v * b[r]; \
      } \
    } \
    for (int i = 0; i < 16; i += VL) store(t + i, sums(s + i)); \
    return j; \
  }
SUMS(sums_f32, F32)
SUMS(sums_bf16, BF16)
SUMS(sums_f16, F16)
#undef SUMS

// WR of the weights' rows at a time for four rows of x after four; the weights come from memory for the first of these, who all
// ask for a part of what follows
static inline __attribute__((always_inline)) void fours(int m, const float *x, long ldx, int k, const void *w, const int dtype, long ld, int n0, int n1, float *c, long ldc, int add) {
  const int passes = (m + 3) / 4;
  for (int n = n0; n < n1; n += WR)
    for (int p = 0; p < passes; p++) {
      const int m4 = m - 4 * p < 4 ? m - 4 * p : 4, wr = n1 - n < WR ? n1 - n : WR;
      const void *from[WR], *next[2];
      const float *at[4];
      for (int r = 0; r < WR; r++) from[r] = (const char *)w + (n + (r < wr ? r : 0)) * ld * size(dtype);
      for (int i = 0; i < 4; i++) at[i] = x + (4 * p + (i < m4 ? i : 0)) * ldx;
      for (int i = 0; i < 2; i++) {
        const int r = p + i * passes;
        next[i] = r < WR ? (const char *)w + (n + 2 * WR + r) * ld * size(dtype) : 0;
      }
      float t[16] __attribute__((aligned(64)));
      const int j = (dtype == F32 ? sums_f32 : dtype == BF16 ? sums_bf16 : sums_f16)(at, k, from, next, t);
      for (int q = j; q < k; q++)
        for (int i = 0; i < 4; i++)
          for (int r = 0; r < WR; r++) t[4 * i + r] += at[i][q] * scalar(from[r], dtype, q);
      for (int i = 0; i < m4; i++) {
        float *to = c + (4 * p + i) * ldc + n;
        if (add)
          for (int r = 0; r < wr; r++) t[4 * i + r] += to[r];
        if (wr == WR) // of a known size: no call
          memcpy(to, t + 4 * i, sizeof(float) * WR);
        else
          memcpy(to, t + 4 * i, sizeof(float) * wr);
      }
    }
}

// wide vectors of columns from n on: m rows of x times weights stored [in, out]
static inline __attribute__((always_inline)) void band(const int m, const int wide, const float *x, long ldx, int k, const void *w, const int dtype, long ld, int n, float *c, long ldc, int add) {
  const int AHEAD = 16, SIZE = size(dtype); // rows; bytes
  V s[4][8];
  for (int i = 0; i < m; i++)
    for (int v = 0; v < wide; v++) s[i][v] = (V){};
  for (int t = 0; t < k; t++) {
    long at = t * ld + n;
    ask_for((const char *)w + (at + AHEAD * ld) * SIZE, wide * VL * SIZE);
#pragma GCC unroll 8
    for (int v = 0; v < wide; v++) {
      V b = vector(w, dtype, at + v * VL);
      for (int i = 0; i < m; i++) s[i][v] += splat(x[i * ldx + t]) * b;
    }
  }
  for (int i = 0; i < m; i++)
    for (int v = 0; v < wide; v++) {
      float *to = c + i * ldc + n + v * VL;
      store(to, s[i][v] + (add ? load(to) : (V){}));
    }
}

static inline __attribute__((always_inline)) void columns(const int m, const float *x, long ldx, int k, const void *w, const int dtype, long ld, int n0, int n1, float *c, long ldc, int add) {
  const int WIDE = m <= 2 ? 8 : 4;
  int n = n0;
  for (; n + WIDE * VL <= n1; n += WIDE * VL) band(m, WIDE, x, ldx, k, w, dtype, ld, n, c, ldc, add);
  for (; n + VL <= n1; n += VL) band(m, 1, x, ldx, k, w, dtype, ld, n, c, ldc, add);
  for (; n < n1; n++)
    for (int i = 0; i < m; i++) {
      float r = 0;
      for (int t = 0; t < k; t++) r += x[i * ldx + t] * scalar(w, dtype, t * ld + n);
      c[i * ldc + n] = r + (add ? c[i * ldc + n] : 0);
    }
}

// product for few rows: each weight is read once and packed nowhere
void K(few)(const float *x, long ldx, int m, int k, const void *w, int dtype, int in_out, long ld, int n0, int n1, float *c, long ldc, int add) {
#define EACH(kind, rest, dtype) \
  switch (m) { \
  case 1: kind(1, x, ldx, k, w, dtype, ld, n0, n1, c, ldc, add); break; \
  case 2: kind(2, x, ldx, k, w, dtype, ld, n0, n1, c, ldc, add); break; \
  case 3: kind(3, x, ldx, k, w, dtype, ld, n0, n1, c, ldc, add); break; \
  case 4: kind(4, x, ldx, k, w, dtype, ld, n0, n1, c, ldc, add); break; \
  default: rest; \
  }
#define OF(dtype) \
  if (in_out) \
    EACH(columns, (void)0, dtype) /* at most four rows come here */ \
  else \
    EACH(rows, fours(m, x, ldx, k, w, dtype, ld, n0, n1, c, ldc, add), dtype)
  if (dtype == F32) {
    OF(F32)
  } else if (dtype == BF16) {
    OF(BF16)
  } else {
    OF(F16)
  }
#undef OF
#undef EACH
}

// n rounds of multiply-adds on registers, 4 MR VL FLOPs each: what the CPU does at most
float K(peak)(long n, const float *x) {
  V r[MR][2], a = load(x), b = load(x + VL);
  for (int i = 0; i < MR; i++) r[i][0] = a, r[i][1] = b;
  for (; n > 0; n--) {
#ifdef __aarch64__
    __asm__ volatile("" : "+w"(a), "+w"(b)); // or a round would be the one before
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

#include "attention.h"

// ---- norms and rotary positions ------------------------------------------------------------------------------------------

// o = w x r, r = 1 / sqrt(mean(x^2) + eps)
void K(rms_norm)(const float *x, const float *w, float eps, float *o, int n) {
  float r = 1.f / sqrtf(dot(x, x, n) / n + eps);
  for (int i = 0; i < n; i += VL) put(o + i, some(w + i, n - i) * (some(x + i, n - i) * r), n - i);
}

// dx = r (w d - x mean(w d x) r^2); dx may lie on d
void K(rms_norm_back)(const float *d, const float *x, const float *w, float eps, float *dx, int n) {
  float r = 1.f / sqrtf(dot(x, x, n) / n + eps);
  V s = {};
  for (int i = 0; i < n; i += VL) s += some(w + i, n - i) * some(d + i, n - i) * some(x + i, n - i);
  float m = sum(s) / n * r * r;
  for (int i = 0; i < n; i += VL) put(dx + i, r * (some(w + i, n - i) * some(d + i, n - i) - some(x + i, n - i) * m), n - i);
}

// the mean of x, and 1 / sqrt(variance + eps)
static void moments(const float *x, float eps, int n, float *mean, float *r) {
  V s = {}, q = {};
  for (int i = 0; i < n; i += VL) s += some(x + i, n - i);
  float m = sum(s) / n;
  for (int i = 0; i < n; i += VL) {
    V d = some(x + i, n - i) - m;
    if (n - i < VL) d = some((const float *)&d, n - i);
    q += d * d;
  }
  *mean = m;
  *r = 1.f / sqrtf(sum(q) / n + eps);
}

// o = w (x - mean) r + b
void K(layer_norm)(const float *x, const float *w, const float *b, float eps, float *o, int n) {
  float mean, r;
  moments(x, eps, n, &mean, &r);
  for (int i = 0; i < n; i += VL) put(o + i, some(w + i, n - i) * ((some(x + i, n - i) - mean) * r) + some(b + i, n - i), n - i);
}

// dx = r (w d - mean(w d) - y mean(w d y)), y = (x - mean) r; dx may lie on d
void K(layer_norm_back)(const float *d, const float *x, const float *w, float eps, float *dx, int n) {
  float mean, r;
  moments(x, eps, n, &mean, &r);
  V s = {}, t = {};
  for (int i = 0; i < n; i += VL) {
    V g = some(w + i, n - i) * some(d + i, n - i);
    s += g;
    t += g * (some(x + i, n - i) - mean);
  }
  float ms = sum(s) / n, mt = sum(t) / n * r * r;
  for (int i = 0; i < n; i += VL) put(dx + i, r * (some(w + i, n - i) * some(d + i, n - i) - ms - (some(x + i, n - i) - mean) * mt), n - i);
}

// o = a + b; o may lie on either
void K(add)(const float *a, const float *b, float *o, int n) {
  int i = 0;
  for (; i + VL <= n; i += VL) store(o + i, load(a + i) + load(b + i));
  if (i < n) put(o + i, some(a + i, n - i) + some(b + i, n - i), n - i);
}

// in each head of dim values: (a, b), the first and the second half values, becomes (a cos - b sign sin, b cos + a sign sin)
void K(rotate)(float *x, int heads, int dim, int half, const float *cos, const float *sin, float sign) {
  for (int h = 0; h < heads; h++, x += dim)
    for (int i = 0; i < half; i += VL) {
      int n = half - i;
      V c = some(cos + i, n), s = sign * some(sin + i, n), a = some(x + i, n), b = some(x + half + i, n);
      put(x + i, a * c - b * s, n);
      put(x + half + i, b * c + a * s, n);
    }
}

// ---- activations and loss -----------------------------------------------------------------------------------------------

enum { SILU, GELU_TANH, GELU, RELU }; // as in act.go

// (1 - erf(|x| / sqrt(2))) / 2 to 1e-7, given e^(-x^2/2): Abramowitz and Stegun 7.1.26
static inline V tail(V x, V e) {
  V t = 1.f / (1.f + 0.3275911f * 0.70710678f * pick(x < 0.f, -x, x));
  return 0.5f * e * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
}

// the activation's value at x
static inline __attribute__((always_inline)) V act(const int kind, V x) {
  if (kind == SILU) return x / (1.f + vexp(-x));
  if (kind == GELU_TANH) return 0.5f * x * (1.f + vtanh(0.7978845608f * (x + 0.044715f * x * x * x)));
  if (kind == RELU) return pick(x > 0.f, x, (V){});
  V q = tail(x, vexp(-0.5f * x * x));
  return x * pick(x < 0.f, q, 1.f - q);
}

// and there its slope
static inline __attribute__((always_inline)) V slope(const int kind, V x) {
  if (kind == SILU) {
    V s = 1.f / (1.f + vexp(-x));
    return s * (1.f + x * (1.f - s));
  }
  if (kind == GELU_TANH) {
    V t = vtanh(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * 0.7978845608f * (1.f + 0.134145f * x * x);
  }
  if (kind == RELU) return pick(x > 0.f, splat(1.f), (V){});
  V e = vexp(-0.5f * x * x), q = tail(x, e);
  return pick(x < 0.f, q, 1.f - q) + 0.39894228f * x * e;
}

// a loop for each kind of activation
#define KINDS(loop) \
  switch (kind) { \
  case SILU: loop(SILU); break; \
  case GELU_TANH: loop(GELU_TANH); break; \
  case GELU: loop(GELU); break; \
  default: loop(RELU); \
  }

// out = act(gate) up
void K(gated)(int kind, const float *gate, const float *up, float *out, int n) {
#define LOOP(kind) \
  for (int i = 0; i < n; i += VL) put(out + i, act(kind, some(gate + i, n - i)) * some(up + i, n - i), n - i)
  KINDS(LOOP)
#undef LOOP
}

// dgate = d up act'(gate), dup = d act(gate); dgate and dup may lie on gate and up
void K(gated_back)(int kind, const float *gate, const float *up, const float *d, float *dgate, float *dup, int n) {
#define LOOP(kind) \
  for (int i = 0; i < n; i += VL) { \
    V g = some(gate + i, n - i), u = some(up + i, n - i), y = some(d + i, n - i); \
    put(dgate + i, y * u * slope(kind, g), n - i); \
    put(dup + i, y * act(kind, g), n - i); \
  }
  KINDS(LOOP)
#undef LOOP
}

// out = act(x)
void K(act)(int kind, const float *x, float *out, int n) {
#define LOOP(kind) \
  for (int i = 0; i < n; i += VL) put(out + i, act(kind, some(x + i, n - i)), n - i)
  KINDS(LOOP)
#undef LOOP
}

// dx = d act'(x); dx may lie on x or d
void K(act_back)(int kind, const float *x, const float *d, float *dx, int n) {
#define LOOP(kind) \
  for (int i = 0; i < n; i += VL) put(dx + i, some(d + i, n - i) * slope(kind, some(x + i, n - i)), n - i)
  KINDS(LOOP)
#undef LOOP
}

// l = e^(l - max), where *max becomes the largest of itself and l; returns the sum
double K(softmax_part)(float *l, int n, float *max) {
  float m = largest(l, n);
  *max = m = *max > m ? *max : m;
  double z = 0; // over a vocabulary a float's sum would lose digits
  for (int i = 0; i < n; i += VL) {
    V e = vexp(some(l + i, n - i) - m);
    if (n - i < VL) e = some((const float *)&e, n - i);
    put(l + i, e, n - i);
    z += sum(e);
  }
  return z;
}
