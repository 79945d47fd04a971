// Attention over a forest, a part of body.h. The work is one key/value head for n query rows that follow each other in a group and
// all query heads that share it: all rows see the key rows of spans [from, to) and row i of the group sees own..own+i. The rows of the
// keys that the last of them sees are listed, in that order, so row i sees the first base+i+1 of them; scores exist for these rows
// only. Queries are numbered row by row, so query t is head t % heads of row t / heads. Keys and values are turned once for all of
// them, so that every product below runs on whole vectors.

static int keys(const int *spans, int nspans, int own, int last, int *list) {
  int n = 0;
  for (int a = 0; a < nspans; a++)
    for (int j = spans[2 * a]; j < spans[2 * a + 1]; j++) list[n++] = j;
  for (int j = own; j <= own + last; j++) list[n++] = j;
  return n;
}

// out[tile][d][j] = x[list[tile*NR+j]][d], zero behind the last key
static void turn(const float *x, long ld, const int *list, int n, int hd, float *out) {
  for (int j = 0; j < n; j += NR, out += NR * hd)
    for (int v = 0; v < NR; v += VL) {
      int rows = n - j - v, d = 0;
      for (; d + VL <= hd; d += VL) {
        float t[VL][VL] __attribute__((aligned(64)));
        for (int i = 0; i < VL; i++) *(V *)t[i] = i < rows ? load(x + list[j + v + i] * ld + d) : (V){};
        transpose(t, out + d * NR + v, NR);
      }
      for (; d < hd; d++)
        for (int i = 0; i < VL; i++) out[d * NR + v + i] = i < rows ? x[list[j + v + i] * ld + d] : 0;
    }
}

// where in a matrix with rows of ld floats the queries are, from the first one
static void places(int n, int heads, int hd, long ld, int *at) {
  for (int i = 0; i < n; i++)
    for (int h = 0; h < heads; h++) *at++ = i * ld + h * hd;
}

// c[i][j] (+)= sum over k of a[i][k] b[k][j] for i < m <= MR and the n columns j of one vector or, wide, of two. Row i of a begins at
// a + i lda, or a[i][k] is at a + i + k lda with across; ra, rb and rc say where rows begin in the units of lda, ldb and ldc, or without them
// rows follow each other.
static inline __attribute__((always_inline)) void block(const int across, const int wide, int m, const int n, int kb, const float *a, long lda, const int *ra, const float *b, long ldb, const int *rb, float *c, long ldc, const int *rc, const int add) {
  V r[MR][2];
  const float *at[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) {
    const int row = i < m ? i : m - 1;
    r[i][0] = r[i][1] = (V){}, at[i] = a + (ra ? ra[row] : row) * lda;
  }
  for (int k = 0; k < kb; k++) {
    const float *row = b + (rb ? rb[k] : k) * ldb;
    V b0 = some(row, n), b1 = wide ? some(row + VL, n - VL) : (V){};
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const float *x = across ? a + k * lda + i : at[i] + k;
      if (wide)
        multiply_add(r[i], x, b0, b1);
      else
        r[i][0] += *x * b0;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++) {
    if (i >= m) break;
    float *to = c + (rc ? rc[i] : i) * ldc;
    put(to, r[i][0] + (add ? some(to, n) : (V){}), n);
    if (wide) put(to + VL, r[i][1] + (add ? some(to + VL, n - VL) : (V){}), n - VL);
  }
}

// block for n columns
static inline __attribute__((always_inline)) void blocks(const int across, int m, int n, int kb, const float *a, long lda, const float *b, long ldb, const int *rb, float *c, long ldc, const int *rc, const int add) {
  for (int j = 0; j < n; j += NR) {
    const int left = n - j;
    if (left >= NR)
      block(across, 1, m, NR, kb, a, lda, 0, b + j, ldb, rb, c + j, ldc, rc, add);
    else if (left > VL)
      block(across, 1, m, left, kb, a, lda, 0, b + j, ldb, rb, c + j, ldc, rc, add);
    else
      block(across, 0, m, left, kb, a, lda, 0, b + j, ldb, rb, c + j, ldc, rc, add);
  }
}

// s[t][j] = x[t].turned key j for the keys that query t and some behind it see; its row i sees base+i+1
static void against(int n, int heads, int hd, const float *x, const int *at, const float *turned, int base, float *s, int lds) {
  for (int t = 0; t < n * heads; t += MR) {
    const int m = n * heads - t < MR ? n * heads - t : MR, seen = base + (t + m - 1) / heads + 1;
    for (int j = 0; j < seen; j += NR) {
      float *to = s + (long)t * lds + j;
      if (seen - j > VL)
        block(0, 1, m, NR, hd, x, 1, at + t, turned + (long)j * hd, NR, 0, to, lds, 0, 0);
      else
        block(0, 0, m, VL, hd, x, 1, at + t, turned + (long)j * hd, NR, 0, to, lds, 0, 0);
    }
  }
}

// x[t] = the sum of the key rows in s[t]'s proportions
static void gather(int n, int heads, int hd, const float *s, int lds, int base, const float *rows, long ld, const int *list, float *x, const int *at) {
  for (int t = 0; t < n * heads; t += MR) {
    const int m = n * heads - t < MR ? n * heads - t : MR;
    blocks(0, m, hd, base + (t + m - 1) / heads + 1, s + (long)t * lds, lds, rows, ld, list, x, 1, at + t, 0);
  }
}

// the keys' rows += the sum of the queries x[t] in s's proportions, for the keys j0 <= j < j1; s has MR floats behind its last
static void scatter(int n, int heads, int hd, const float *s, int lds, int base, const float *x, const int *at, float *rows, long ld, const int *list, int j0, int j1) {
  for (int j = j0; j < j1; j += MR) {
    const int from = j > base ? (j - base) * heads : 0; // the first query that sees key j
    if (from < n * heads) blocks(1, j1 - j < MR ? j1 - j : MR, hd, n * heads - from, s + (long)from * lds + j, lds, x, 1, at + from, rows, ld, list + j, 1);
  }
}

// s[j] = e^(scale s[j] - c) for j < n, zero from there to the end of the vector; returns the sum
static float exps(float *s, int n, float scale, float c) {
  V z = {};
  for (int i = 0; i < n; i += VL) {
    V e = pick(first(n - i), vexp(scale * load(s + i) - c), (V){});
    store(s + i, e);
    z += e;
  }
  return sum(z);
}

// What blocks read beyond the keys that a row sees is zero.
static void blank(float *s, int seen, int L) {
  int to = seen + MR < L ? seen + MR : L;
  for (int j = (seen + VL - 1) / VL * VL; j < to; j += VL) store(s + j, (V){});
}

static float largest(const float *s, int n) {
  V m = splat(s[0]);
  for (int i = 0; i < n; i += VL) {
    V v = n - i < VL ? pick(first(n - i), load(s + i), m) : load(s + i);
    m = pick(v > m, v, m);
  }
  float t = m[0];
  for (int j = 1; j < VL; j++) t = m[j] > t ? m[j] : t;
  return t;
}

// s = softmax(scale s) over its first n, zero to the end of the vector; returns the log of the denominator
static float softmax(float *s, int n, float scale) {
  float m = scale * largest(s, n), z = exps(s, n, scale, m);
  V part = splat(1.f / z);
  for (int j = 0; j < n; j += VL) store(s + j, load(s + j) * part);
  return m + logf(z);
}

// What softmax takes, of s = q.k: scale s, or cap tanh(scale s / cap), plus the bias of the key's position; almost nothing for the
// keys before from, which the row does not see. Returns what s is still to be multiplied by, and in by, if asked for, what a
// gradient is multiplied by on its way back through cap.
static float shape(float *s, int seen, int from, float scale, float cap, const float *bias, float *by) {
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

// the first key that a row sees of those listed, if its own is the last one
static int first_seen(int own, int window) { return window > 0 && own >= window ? own - window + 1 : 0; }

// o[h] = the sum of the value rows in s[h]'s proportions for the columns of four vectors, or for the first n of one
static inline __attribute__((always_inline)) void mix(const int heads, const int wide, int n, const float *s, int lds, const float *v, long ld, const int *list, int L, float *o, int hd) {
  V sums[4][4] = {};
  for (int j = 0; j < L; j++) {
    const float *row = v + list[j] * ld;
#pragma GCC unroll 4
    for (int c = 0; c < wide; c++) {
      V x = some(row + c * VL, wide > 1 ? VL : n);
#pragma GCC unroll 4
      for (int h = 0; h < heads; h++) sums[h][c] += s[h * lds + j] * x;
    }
  }
  for (int h = 0; h < heads; h++)
    for (int c = 0; c < wide; c++) put(o + h * hd + c * VL, sums[h][c], wide > 1 ? VL : n);
}

static void mixes(int heads, int wide, int n, const float *s, int lds, const float *v, long ld, const int *list, int L, float *o, int hd) {
#define HEADS(h) \
  case h: \
    if (wide > 1) \
      mix(h, 4, n, s, lds, v, ld, list, L, o, hd); \
    else \
      mix(h, 1, n, s, lds, v, ld, list, L, o, hd); \
    break
  switch (heads) {
    HEADS(1);
    HEADS(2);
    HEADS(3);
    HEADS(4);
  }
#undef HEADS
}

// asks for share i of n of a key and its value
static inline void ask(const float *key, int voff, int hd, int i, int n) {
  for (int d = 16 * i; d < hd; d += 16 * n) __builtin_prefetch(key + d), __builtin_prefetch(key + voff + d, 0, 2);
}

// one query row for all heads that share a key head. Keys and values that are read soon, and lie apart, are asked for, a few lines after
// each product: of many at once Zen 5 leaves out some.
static void one(const float *q, const float *kv, long ldkv, int voff, int heads, int hd, float scale, float cap, const float *bias, long ldb, const int *list, int L, float *o, float *lse, float *s, int lds) {
  for (int j = 0; j < L; j += VL) {
    for (int h = 0; h < heads; h++) {
      V by[VL];
      for (int i = 0; i < VL; i++) {
        by[i] = products(q + h * hd, kv + list[j + i < L ? j + i : L - 1] * ldkv, hd);
        if (j + VL + i < L) ask(kv + list[j + VL + i] * ldkv, voff, hd, h, heads);
      }
      store(s + h * lds + j, sums(by));
    }
  }
  for (int h = 0; h < heads; h++) {
    float by = shape(s + h * lds, L, 0, scale, cap, bias ? bias + h * ldb : 0, 0);
    lse[h] = softmax(s + h * lds, L, by);
  }
  for (int h = 0; h < heads; h += 4) {
    const int four = heads - h < 4 ? heads - h : 4;
    for (int d = 0, wide; d < hd; d += wide * VL) {
      wide = hd - d < 4 * VL ? 1 : 4;
      mixes(four, wide, hd - d, s + h * lds, lds, kv + voff + d, ldkv, list, L, o + h * hd + d, hd);
    }
  }
}

// The rows first <= i < first+n of a group: o[i] = sum over j of softmax_j(scale q[i].k[j]) v[j], lse[i] = log of the softmax's
// denominator, for the heads that share a key/value head; key row j is at kv + j*ldkv, its value voff floats behind. q, o and lse
// are those of row first and of the first of the heads. bias + h*ldb is head h's for position 0, or there is none; a window that is
// not 0 is how many keys a row sees. Scores exist for so many rows as part says at a time.
void K(attend)(const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int *spans, int nspans, int own, int first, int n, int part, float *o, long ldo, float *lse, long ldl, float *room) {
  int *list = (int *)room, L = keys(spans, nspans, own, first + n - 1, list), base = L - n, lds = (L + NR - 1) / NR * NR;
  int past = first_seen(base, window); // keys that no row sees
  list += past, L -= past, base -= past, bias = bias ? bias + past : 0;
  room += lds;
  if (n == 1) return one(q, kv, ldkv, voff, heads, hd, scale, cap, bias, ldb, list, L, o, lse, room, lds);
  int *of_q = (int *)room, *of_o = of_q + part * heads;
  float *k = (float *)(of_o + part * heads), *s = k + (long)lds * hd;
  places(part, heads, hd, ldq, of_q);
  places(part, heads, hd, ldo, of_o);
  turn(kv, ldkv, list, L, hd, k);
  for (int i = 0; i < n; i += part, base += part, q += part * ldq, o += part * ldo, lse += part * ldl) {
    const int rows = n - i < part ? n - i : part;
    against(rows, heads, hd, q, of_q, k, base, s, lds);
    for (int t = 0, seen = base + 1; seen <= base + rows; seen++)
      for (int h = 0; h < heads; h++, t++) {
        float *p = s + (long)t * lds;
        float by = shape(p, seen, first_seen(seen - 1, window), scale, cap, bias ? bias + h * ldb : 0, 0);
        lse[(seen - base - 1) * ldl + h] = softmax(p, seen, by);
        blank(p, seen, base + rows);
      }
    gather(rows, heads, hd, s, lds, base, kv + voff, ldkv, list, o, of_o);
  }
}

// The way back: dq[i] = sum_j ds k[j], dk[j] += ds q[i], dv[j] += p do[i], where p = e^(s-lse), ds = slope p (do.v[j] - sum_j p do.v[j]),
// slope being scale or what cap makes of it.
// dq is written for the first nq query rows only, dkv for the key rows < nk only, and for those < from in before.
void K(attend_back)(const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int *spans, int nspans, int own, int first, int n, int part, const float *dout, long ldo, const float *lse, long ldl, float *dq, long lddq, int nq, float *dkv, float *before, int from, long lddkv, int nk, float *room) {
  int *list = (int *)room, L = keys(spans, nspans, own, first + n - 1, list), base = L - n, lds = (L + NR - 1) / NR * NR;
  const int most = part * heads;
  int *of_q = (int *)room + lds, *of_o = of_q + most, *of_dq = of_o + most;
  float *k = (float *)(of_dq + most), *v = k + (long)lds * hd, *s = v + (long)lds * hd, *d = s + (long)most * lds, *by = d + (long)most * lds;
  int past = first_seen(base, window), wanted = 0, kept = 0;
  list += past, L -= past, base -= past, bias = bias ? bias + past : 0;
  while (wanted < L && list[wanted] < nk) wanted++;
  while (kept < L && list[kept] < from) kept++;
  places(part, heads, hd, ldq, of_q);
  places(part, heads, hd, ldo, of_o);
  places(part, heads, hd, lddq, of_dq);
  turn(kv, ldkv, list, L, hd, k);
  turn(kv + voff, ldkv, list, L, hd, v);
  for (int i = 0; i < n; i += part, base += part, q += part * ldq, dout += part * ldo, lse += part * ldl) {
    const int rows = n - i < part ? n - i : part, asked = nq - i < rows ? nq - i : rows, given = wanted < base + rows ? wanted : base + rows;
    against(rows, heads, hd, q, of_q, k, base, s, lds);
    against(rows, heads, hd, dout, of_o, v, base, d, lds);
    for (int t = 0, seen = base + 1; seen <= base + rows; seen++)
      for (int h = 0; h < heads; h++, t++) {
        float *p = s + (long)t * lds, *dp = d + (long)t * lds;
        exps(p, seen, shape(p, seen, first_seen(seen - 1, window), scale, cap, bias ? bias + h * ldb : 0, by), lse[(seen - base - 1) * ldl + h]);
        V c = {};
        for (int j = 0; j < seen; j += VL) c += load(p + j) * load(dp + j);
        float mean = sum(c);
        for (int j = 0; j < seen; j += VL) store(dp + j, (cap != 0 ? load(by + j) : splat(scale)) * load(p + j) * (load(dp + j) - mean));
        blank(p, seen, base + rows);
        blank(dp, seen, base + rows);
      }
    if (asked > 0) gather(asked, heads, hd, d, lds, base, kv, ldkv, list, dq + i * lddq, of_dq);
    for (int there = 0; there < 2; there++) {
      float *to = there ? dkv : before;
      const int j0 = there ? kept : 0, j1 = there ? given : kept < given ? kept : given;
      scatter(rows, heads, hd, d, lds, base, q, of_q, to, lddkv, list, j0, j1);
      scatter(rows, heads, hd, s, lds, base, dout, of_o, to + voff, lddkv, list, j0, j1);
    }
  }
}
