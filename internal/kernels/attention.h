// Attention over a forest. The work is one key head for n query rows that follow each other in a
// group and all query heads that share the key head. The key rows that the last query row sees are
// listed in the order in which they are seen, so row i sees the first base+i+1 of the list. Scores
// are kept for these only. Queries are numbered row by row: query t is head t % heads of row
// t / heads. Keys and values are transposed once for all queries, so that every product below runs
// on whole vectors.

#include "args.h"
#include "vector.h"

// The listed keys of a call.
typedef struct {
  const int *list; // their rows
  int n, base;
  int lds;           // floats from one query's scores to the next's
  const float *bias; // of the first listed key and the first head; NULL: none
} key_list;

// Lists, in scratch, the key rows that the last query row sees. A window leaves out those at the front
// that no query row sees.
static key_list list_keys(const attend_args *a) {
  int *list = (int *)a->scratch, n = 0;
  for (int s = 0; s < a->nspans; s++)
    for (int j = a->spans[2 * s]; j < a->spans[2 * s + 1]; j++) list[n++] = j;
  for (int j = a->own; j < a->own + a->first + a->n; j++) list[n++] = j;
  return (key_list){list, n, n - a->n, (n + NR - 1) / NR * NR, a->bias};
}

// the first of the listed keys that a row sees whose own is number own
static int first_seen(int own, int window) {
  return window > 0 && own >= window ? own - window + 1 : 0;
}

// leaves out the first keys of the list
static void skip_keys(key_list *keys, int skipped) {
  keys->list += skipped, keys->n -= skipped, keys->base -= skipped;
  if (keys->bias) keys->bias += skipped;
}

// out[tile][d][j] = x[list[tile*NR+j]][d], zero behind the last key
static void transpose_keys(const float *x, long ld, key_list keys, int dim, float *out) {
  for (int j = 0; j < keys.n; j += NR, out += NR * dim)
    for (int v = 0; v < NR; v += VL) {
      const int rows = keys.n - j - v, *list = keys.list + j + v;
      int d = 0;
      for (; d + VL <= dim; d += VL) {
        float t[VL][VL] __attribute__((aligned(64)));
        for (int i = 0; i < VL; i++) *(V *)t[i] = i < rows ? load(x + list[i] * ld + d) : (V){};
        transpose(t, sizeof t[0], out + d * NR + v, NR);
      }
      for (; d < dim; d++)
        for (int i = 0; i < VL; i++) out[d * NR + v + i] = i < rows ? x[list[i] * ld + d] : 0;
    }
}

// writes the offsets of n rows of queries in a matrix whose rows are ld floats apart
static void query_offsets(int n, int heads, int dim, long ld, int *at) {
  for (int i = 0; i < n; i++)
    for (int h = 0; h < heads; h++) *at++ = i * ld + h * dim;
}

// ---- blocks of products ----

// A matrix whose row i begins at data + (rows ? rows[i] : i) * ld.
typedef struct {
  float *data;
  long ld;
  const int *rows;
} matrix;

// c[i][j] (+)= sum over k of a[i][k] b[k][j] for i < m <= MR and the n columns j of one vector or,
// if wide, of two. With across, a is stored [k, i] and its rows follow each other.
INLINE void block(const int across, const int wide, int m, const int n, int kb, matrix a, matrix b,
                  matrix c, const int add) {
  V r[MR][2];
  const float *at[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) {
    const int row = i < m ? i : m - 1;
    r[i][0] = r[i][1] = (V){}, at[i] = a.data + (a.rows ? a.rows[row] : row) * a.ld;
  }
  for (int k = 0; k < kb; k++) {
    const float *row = b.data + (b.rows ? b.rows[k] : k) * b.ld;
    V b0 = load_n(row, n), b1 = wide ? load_n(row + VL, n - VL) : (V){};
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const float *x = across ? a.data + k * a.ld + i : at[i] + k;
      if (wide)
        multiply_add(r[i], x, b0, b1);
      else
        r[i][0] += *x * b0;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) {
    if (i >= m) break;
    float *to = c.data + (c.rows ? c.rows[i] : i) * c.ld;
    store_n(to, r[i][0] + (add ? load_n(to, n) : (V){}), n);
    if (wide) store_n(to + VL, r[i][1] + (add ? load_n(to + VL, n - VL) : (V){}), n - VL);
  }
}

// block for any number n of columns
INLINE void blocks(const int across, int m, int n, int kb, matrix a, matrix b, matrix c,
                   const int add) {
  for (int j = 0; j < n; j += NR, b.data += NR, c.data += NR) {
    const int left = n - j;
    if (left >= NR)
      block(across, 1, m, NR, kb, a, b, c, add);
    else if (left > VL)
      block(across, 1, m, left, kb, a, b, c, add);
    else
      block(across, 0, m, left, kb, a, b, c, add);
  }
}

// Query rows of a call.
typedef struct {
  int n, heads, dim;
  const float *x;
  const int *at; // offsets of the queries
} queries;

// s[t][j] = x[t].key j. Query t has scores for the keys that it sees, and for some behind them.
static void score(queries q, const float *transposed, key_list keys, float *s) {
  for (int t = 0; t < q.n * q.heads; t += MR) {
    const int m = q.n * q.heads - t < MR ? q.n * q.heads - t : MR;
    const int seen = keys.base + (t + m - 1) / q.heads + 1;
    const matrix a = {(float *)q.x, 1, q.at + t};
    for (int j = 0; j < seen; j += NR) {
      const matrix b = {(float *)transposed + (long)j * q.dim, NR, 0};
      const matrix c = {s + (long)t * keys.lds + j, keys.lds, 0};
      if (seen - j > VL)
        block(0, 1, m, NR, q.dim, a, b, c, 0);
      else
        block(0, 0, m, VL, q.dim, a, b, c, 0);
    }
  }
}

// out[t] = sum over the keys j that query t sees of s[t][j] rows[j]; out[t] begins at out + q.at[t]
static void weighted_sums(queries q, const float *s, key_list keys, const float *rows, long ld,
                          float *out) {
  for (int t = 0; t < q.n * q.heads; t += MR) {
    const int m = q.n * q.heads - t < MR ? q.n * q.heads - t : MR;
    const matrix a = {(float *)s + (long)t * keys.lds, keys.lds, 0};
    const matrix b = {(float *)rows, ld, keys.list};
    const matrix c = {out, 1, q.at + t};
    blocks(0, m, q.dim, keys.base + (t + m - 1) / q.heads + 1, a, b, c, 0);
  }
}

// rows[j] += sum over the queries t that see key j of s[t][j] x[t], for the keys j0 <= j < j1.
// Reads up to MR floats behind the last of s.
static void add_weighted(queries q, const float *s, key_list keys, float *rows, long ld, int j0,
                         int j1) {
  for (int j = j0; j < j1; j += MR) {
    const int from = j > keys.base ? (j - keys.base) * q.heads : 0; // the first query that sees j
    if (from >= q.n * q.heads) continue;
    const matrix a = {(float *)s + (long)from * keys.lds + j, keys.lds, 0};
    const matrix b = {(float *)q.x, 1, q.at + from}, c = {rows, ld, keys.list + j};
    blocks(1, j1 - j < MR ? j1 - j : MR, q.dim, q.n * q.heads - from, a, b, c, 1);
  }
}

// ---- scores ----

// s[j] = e^(scale s[j] - c) for j < n, zero from there to the end of the vector; returns the sum
static float exps(float *s, int n, float scale, float c) {
  V z = {};
  for (int i = 0; i < n; i += VL) {
    V e = select_v(mask_first(n - i), vexp(scale * load(s + i) - c), (V){});
    store(s + i, e);
    z += e;
  }
  return sum(z);
}

// zeroes the scores that blocks read behind the keys that a row sees
static void clear_behind(float *s, int seen, int n) {
  int to = seen + MR < n ? seen + MR : n;
  for (int j = (seen + VL - 1) / VL * VL; j < to; j += VL) store(s + j, (V){});
}

// s = softmax(scale s) over its first n, zero to the end of the vector; returns the log of the
// denominator
static float softmax(float *s, int n, float scale) {
  float m = scale * largest(s, n), z = exps(s, n, scale, m);
  V part = splat(1.f / z);
  for (int j = 0; j < n; j += VL) store(s + j, load(s + j) * part);
  return m + logf(z);
}

// Turns s = q.k into scores: scale s, or cap tanh(scale s / cap), plus the bias of the key; -1e30
// for the keys before from, which the row does not see. Returns the scale still to apply to s. With
// a cap and by not NULL, sets by[j] to the derivative of the score by s.
static float finish_scores(const attend_args *a, float *s, int seen, int from, const float *bias,
                           float *by) {
  const float scale = a->scale, cap = a->cap;
  if (cap != 0 || bias)
    for (int j = 0; j < seen; j += VL) {
      V v = scale * load(s + j);
      if (cap != 0) {
        V t = vtanh(v / cap);
        v = cap * t;
        if (by) store(by + j, scale * (1.f - t * t));
      }
      if (bias) v += load(bias + j);
      store(s + j, v);
    }
  for (int j = 0; j < from; j++) s[j] = -1e30f;
  return cap != 0 || bias ? 1 : scale;
}

// ---- one query row ----

// out[h] = sum over the keys of s[h] values, for the columns of four vectors or the first n of one
INLINE void blend(const int heads, const int wide, int n, const float *s, key_list keys,
                  const float *values, long ld, float *out, int dim) {
  V sums[4][4] = {};
  for (int j = 0; j < keys.n; j++) {
    const float *row = values + keys.list[j] * ld;
#pragma GCC unroll 4
    for (int c = 0; c < wide; c++) {
      V x = load_n(row + c * VL, wide > 1 ? VL : n);
#pragma GCC unroll 4
      for (int h = 0; h < heads; h++) sums[h][c] += s[h * keys.lds + j] * x;
    }
  }
  for (int h = 0; h < heads; h++)
    for (int c = 0; c < wide; c++)
      store_n(out + h * dim + c * VL, sums[h][c], wide > 1 ? VL : n);
}

// blend for up to four heads, with a constant number of them
static void blend_heads(int heads, int wide, int n, const float *s, key_list keys,
                        const float *values, long ld, float *out, int dim) {
#define HEADS(h) \
  case h: \
    if (wide > 1) \
      blend(h, 4, n, s, keys, values, ld, out, dim); \
    else \
      blend(h, 1, n, s, keys, values, ld, out, dim); \
    break;
  switch (heads) { HEADS(1) HEADS(2) HEADS(3) HEADS(4) }
#undef HEADS
}

// prefetches share i of n of a key and its value
static inline void prefetch_key(const float *key, int value, int dim, int i, int n) {
  for (int d = 16 * i; d < dim; d += 16 * n) {
    __builtin_prefetch(key + d);
    __builtin_prefetch(key + value + d, 0, 2);
  }
}

// columns[i] = value d+i of VL listed keys from number j on. Behind the last key it is repeated.
INLINE void read_keys(const float *x, long ld, key_list keys, int j, int d, V columns[VL]) {
  const int *list = keys.list + j, last = keys.n - 1 - j;
  if (last >= VL - 1 && list[VL - 1] == list[0] + VL - 1) { // they follow each other
    read_columns((const uint8_t *)(x + list[0] * ld + d), sizeof(float) * ld, columns);
    return;
  }
  float t[VL][VL] __attribute__((aligned(64)));
  for (int i = 0; i < VL; i++) *(V *)t[i] = load(x + list[i < last ? i : last] * ld + d);
  read_columns((const uint8_t *)t, sizeof t[0], columns);
}

// s[h][j] = q[h].key j, added up as block does: VL keys at a time are transposed in registers, and
// while `wide` of these vectors are multiplied, those that follow are prefetched, a few lines at a
// time: of many prefetches at once Zen 5 drops some.
INLINE void score_keys(const attend_args *args, const int heads, const int wide, const float *q,
                       key_list keys, float *s) {
  const attend_args a = *args;
  for (int j = 0; j < keys.n; j += wide * VL) {
    V r[4][4] = {};
    int d = 0;
    for (; d + VL <= a.dim; d += VL) {
      for (int i = j + wide * VL; i < j + 2 * wide * VL && i < keys.n; i++)
        prefetch_key(a.kv + keys.list[i] * a.ldkv, a.value, a.dim, d / VL, a.dim / VL);
      for (int v = 0; v < wide && j + v * VL < keys.n; v++) {
        V columns[VL];
        read_keys(a.kv, a.ldkv, keys, j + v * VL, d, columns);
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
          for (int h = 0; h < heads; h++)
            multiply_add_one(&r[h][v], q + h * a.dim + d + i, columns[i]);
      }
    }
    for (; d < a.dim; d++)
      for (int v = 0; v < wide && j + v * VL < keys.n; v++) {
        V column = {};
        for (int i = 0; i < VL && j + v * VL + i < keys.n; i++)
          column[i] = a.kv[keys.list[j + v * VL + i] * a.ldkv + d];
        for (int h = 0; h < heads; h++) multiply_add_one(&r[h][v], q + h * a.dim + d, column);
      }
    for (int h = 0; h < heads; h++)
      for (int v = 0; v < wide && j + v * VL < keys.n; v++)
        store(s + h * keys.lds + j + v * VL, r[h][v]);
  }
}

// score_keys for up to four heads, with a constant number of them
static void score_heads(const attend_args *args, int heads, const float *q, key_list keys, float *s) {
#define HEADS(h, wide) \
  case h: score_keys(args, h, wide, q, keys, s); break;
  switch (heads) { HEADS(1, 4) HEADS(2, 2) HEADS(3, 2) HEADS(4, 1) }
#undef HEADS
}

// attend for one query row, which needs no transposed copy of the keys
static void attend_row(const attend_args *args, key_list keys) {
  const attend_args a = *args;
  float *s = a.scratch + keys.lds;
  for (int h = 0; h < a.heads; h += 4) {
    const int heads = a.heads - h < 4 ? a.heads - h : 4;
    score_heads(args, heads, a.q + h * a.dim, keys, s + h * keys.lds);
  }
  for (int h = 0; h < a.heads; h++) {
    const float *bias = keys.bias ? keys.bias + h * a.ldb : 0;
    float *p = s + h * keys.lds, scale =
        finish_scores(args, p, keys.n, first_seen(keys.base, a.window), bias, 0);
    a.lse[h] = softmax(p, keys.n, scale);
  }
  for (int h = 0; h < a.heads; h += 4) {
    const int heads = a.heads - h < 4 ? a.heads - h : 4;
    for (int d = 0, wide; d < a.dim; d += wide * VL) {
      wide = a.dim - d < 4 * VL ? 1 : 4;
      blend_heads(heads, wide, a.dim - d, s + h * keys.lds, keys, a.kv + a.value + d, a.ldkv,
                  a.out + h * a.dim + d, a.dim);
    }
  }
}

// ---- attend and attend_back ----

// out[i] = sum over j of softmax_j(scale q[i].k[j]) v[j], and lse[i] = the log of the softmax's
// denominator, for the query rows first <= i < first+n
static void attend(const attend_args *args) {
  const attend_args a = *args;
  key_list keys = list_keys(args);
  // Whole vectors of keys, so that a key has the same place in the sums whichever row is the first.
  skip_keys(&keys, first_seen(keys.base, a.window) / VL * VL);
  if (a.n == 1) return attend_row(args, keys);
  int *of_q = (int *)(a.scratch + keys.lds), *of_out = of_q + a.rows_at_once * a.heads;
  float *k = (float *)(of_out + a.rows_at_once * a.heads), *s = k + (long)keys.lds * a.dim;
  query_offsets(a.rows_at_once, a.heads, a.dim, a.ldq, of_q);
  query_offsets(a.rows_at_once, a.heads, a.dim, a.ldo, of_out);
  transpose_keys(a.kv, a.ldkv, keys, a.dim, k);
  for (int i = 0; i < a.n; i += a.rows_at_once, keys.base += a.rows_at_once) {
    queries q = {a.n - i < a.rows_at_once ? a.n - i : a.rows_at_once, a.heads, a.dim, a.q + i * a.ldq, of_q};
    score(q, k, keys, s);
    for (int t = 0, row = 0; row < q.n; row++)
      for (int h = 0; h < a.heads; h++, t++) {
        const int seen = keys.base + row + 1;
        float *p = s + (long)t * keys.lds;
        const float *bias = keys.bias ? keys.bias + h * a.ldb : 0;
        float scale = finish_scores(args, p, seen, first_seen(seen - 1, a.window), bias, 0);
        a.lse[(i + row) * a.ldl + h] = softmax(p, seen, scale);
        clear_behind(p, seen, keys.base + q.n);
      }
    q.at = of_out;
    weighted_sums(q, s, keys, a.kv + a.value, a.ldkv, a.out + i * a.ldo);
  }
}

// The gradients: dq[i] = sum_j ds k[j], dk[j] += ds q[i], dv[j] += p dout[i], where
// p = e^(score - lse), ds = slope p (dout.v[j] - sum_j p dout.v[j]), and slope is scale or, with a
// cap, the derivative of the score.
static void attend_back(const attend_back_args *args) {
  const attend_back_args b = *args;
  const attend_args a = b.of;
  key_list keys = list_keys(&args->of);
  const int most = a.rows_at_once * a.heads;
  const long lds = keys.lds;
  int *of_q = (int *)a.scratch + lds, *of_dout = of_q + most, *of_dq = of_dout + most;
  float *k = (float *)(of_dq + most), *v = k + lds * a.dim; // transposed
  float *s = v + lds * a.dim, *d = s + most * lds, *by = d + most * lds;
  skip_keys(&keys, first_seen(keys.base, a.window));
  int wanted = 0, elsewhere = 0; // keys with a gradient, and those of them before from
  while (wanted < keys.n && keys.list[wanted] < b.nk) wanted++;
  while (elsewhere < keys.n && keys.list[elsewhere] < b.from) elsewhere++;
  query_offsets(a.rows_at_once, a.heads, a.dim, a.ldq, of_q);
  query_offsets(a.rows_at_once, a.heads, a.dim, a.ldo, of_dout);
  query_offsets(a.rows_at_once, a.heads, a.dim, b.lddq, of_dq);
  transpose_keys(a.kv, a.ldkv, keys, a.dim, k);
  transpose_keys(a.kv + a.value, a.ldkv, keys, a.dim, v);
  for (int i = 0; i < a.n; i += a.rows_at_once, keys.base += a.rows_at_once) {
    const int rows = a.n - i < a.rows_at_once ? a.n - i : a.rows_at_once;
    const queries q = {rows, a.heads, a.dim, a.q + i * a.ldq, of_q};
    const queries dout = {rows, a.heads, a.dim, a.out + i * a.ldo, of_dout};
    score(q, k, keys, s);
    score(dout, v, keys, d);
    for (int t = 0, row = 0; row < rows; row++)
      for (int h = 0; h < a.heads; h++, t++) {
        const int seen = keys.base + row + 1;
        float *p = s + t * lds, *dp = d + t * lds;
        const float *bias = keys.bias ? keys.bias + h * a.ldb : 0;
        float scale =
            finish_scores(&args->of, p, seen, first_seen(seen - 1, a.window), bias, by);
        exps(p, seen, scale, a.lse[(i + row) * a.ldl + h]);
        V c = {};
        for (int j = 0; j < seen; j += VL) c += load(p + j) * load(dp + j);
        float mean = sum(c);
        for (int j = 0; j < seen; j += VL) {
          V slope = a.cap != 0 ? load(by + j) : splat(a.scale);
          store(dp + j, slope * load(p + j) * (load(dp + j) - mean));
        }
        clear_behind(p, seen, keys.base + rows);
        clear_behind(dp, seen, keys.base + rows);
      }
    if (b.nq > i) {
      const queries asked = {b.nq - i < rows ? b.nq - i : rows, a.heads, a.dim, 0, of_dq};
      weighted_sums(asked, d, keys, a.kv, a.ldkv, b.dq + i * b.lddq);
    }
    const int given = wanted < keys.base + rows ? wanted : keys.base + rows;
    const int split = elsewhere < given ? elsewhere : given;
    add_weighted(q, d, keys, b.before, b.lddkv, 0, split);
    add_weighted(dout, s, keys, b.before + a.value, b.lddkv, 0, split);
    add_weighted(q, d, keys, b.dkv, b.lddkv, elsewhere, given);
    add_weighted(dout, s, keys, b.dkv + a.value, b.lddkv, elsewhere, given);
  }
}
