// Attention over a forest, a part of body.h. The work is one key/value head for n query rows that follow each other in a group:
// all of them see the key rows of spans [from, to) and row i of the group sees own..own+i. The rows of the keys that the last of
// them sees are listed, in that order, so row i sees the first base+i+1 of them; scores exist for these rows only. Keys and
// values are turned once for all query heads that share them, so that every product below runs on whole vectors.

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

// c[i][j] (+)= sum over k of a[i*ai + k*ak] b[k][j] for i < m <= MR and j < n <= NR; rows of b and of c are those of a list, or
// without one follow each other
static inline __attribute__((always_inline)) void block(int m, int n, int kb, const float *a, long ai, long ak, const float *b, long ldb, const int *rb, float *c, long ldc, const int *rc, int add) {
  V r[MR][2];
  const float *at[MR];
  for (int i = 0; i < MR; i++) r[i][0] = r[i][1] = (V){}, at[i] = a + (i < m ? i : m - 1) * ai;
  for (int k = 0; k < kb; k++) {
    const float *row = b + (rb ? rb[k] : k) * ldb;
    V b0 = some(row, n), b1 = n > VL ? some(row + VL, n - VL) : (V){};
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      V s = splat(at[i][k * ak]);
      r[i][0] += s * b0;
      r[i][1] += s * b1;
    }
  }
  for (int i = 0; i < MR && i < m; i++) {
    float *to = c + (rc ? rc[i] : i) * ldc;
    put(to, r[i][0] + (add ? some(to, n) : (V){}), n);
    if (n > VL) put(to + VL, r[i][1] + (add ? some(to + VL, n - VL) : (V){}), n - VL);
  }
}

// block for an m x n matrix
static void blocks(int m, int n, int kb, const float *a, long ai, long ak, const float *b, long ldb, const int *rb, float *c, long ldc, const int *rc, int add) {
  for (int i = 0; i < m; i += MR)
    for (int j = 0; j < n; j += NR) {
      int mb = m - i < MR ? m - i : MR;
      const int *ri = rc ? rc + i : 0;
      float *to = c + (rc ? 0 : i * ldc) + j;
      if (n - j >= NR)
        block(mb, NR, kb, a + i * ai, ai, ak, b + j, ldb, rb, to, ldc, ri, add);
      else
        block(mb, n - j, kb, a + i * ai, ai, ak, b + j, ldb, rb, to, ldc, ri, add);
    }
}

// s[i][j] = x[i].turned key j for the keys that row i and some behind them see; row i sees base+i+1
static void against(int n, int hd, const float *x, long ldx, const float *turned, int base, float *s, int lds) {
  for (int i = 0; i < n; i += MR) {
    int m = n - i < MR ? n - i : MR;
    for (int j = 0; j < base + i + m; j += NR) block(m, NR, hd, x + i * ldx, ldx, 1, turned + (long)j * hd, NR, 0, s + (long)i * lds + j, lds, 0, 0);
  }
}

// x = the sum of the key rows in s's proportions
static void gather(int n, int hd, const float *s, int lds, int base, const float *rows, long ld, const int *list, float *x, long ldx) {
  for (int i = 0; i < n; i += MR) {
    int m = n - i < MR ? n - i : MR;
    blocks(m, hd, base + i + m, s + (long)i * lds, lds, 1, rows, ld, list, x + i * ldx, ldx, 0, 0);
  }
}

// the keys' rows += the sum of the query rows in s's proportions, for the first nk keys
static void scatter(int n, int hd, const float *s, int lds, int base, const float *x, long ldx, float *rows, long ld, const int *list, int nk) {
  for (int j = 0; j < nk; j += MR) {
    int from = j > base ? j - base : 0; // the first row that sees key j
    if (from < n) blocks(nk - j < MR ? nk - j : MR, hd, n - from, s + (long)from * lds + j, 1, lds, x + from * ldx, ldx, 0, rows, ld, list + j, 1);
  }
}

// s[j] = e^(scale s[j] - c) for j < n, zero from there to the end of the vector; returns the sum
static float exps(float *s, int n, float scale, float c) {
  V z = {};
  for (int i = 0; i < n; i += VL) {
    V e = vexp(scale * load(s + i) - c);
    if (n - i < VL) e = some((const float *)&e, n - i);
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
  int i = 0;
  for (; i + VL <= n; i += VL) m = pick(load(s + i) > m, load(s + i), m);
  float t = s[0];
  for (int j = 0; j < VL; j++) t = m[j] > t ? m[j] : t;
  for (; i < n; i++) t = s[i] > t ? s[i] : t;
  return t;
}

// s = softmax(scale s) over its first n, zero to the end of the vector; returns the log of the denominator
static float softmax(float *s, int n, float scale) {
  float m = scale * largest(s, n), z = exps(s, n, scale, m);
  for (int j = 0; j < n; j += VL) store(s + j, load(s + j) / z);
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
// not 0 is how many keys a row sees.
void K(attend)(const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int *spans, int nspans, int own, int first, int n, float *o, long ldo, float *lse, long ldl, float *room) {
  int *list = (int *)room, L = keys(spans, nspans, own, first + n - 1, list), base = L - n, lds = (L + NR - 1) / NR * NR;
  float *k = room + lds, *s = k + (long)lds * hd;
  int past = first_seen(base, window); // keys that no row sees
  list += past, L -= past, base -= past, bias = bias ? bias + past : 0;
  if (n == 1) return one(q, kv, ldkv, voff, heads, hd, scale, cap, bias, ldb, list, L, o, lse, k, lds);
  turn(kv, ldkv, list, L, hd, k);
  for (int h = 0; h < heads; h++, q += hd, o += hd, lse++, bias = bias ? bias + ldb : 0) {
    against(n, hd, q, ldq, k, base, s, lds);
    for (int i = 0; i < n; i++) {
      float *row = s + (long)i * lds;
      float by = shape(row, base + i + 1, first_seen(base + i, window), scale, cap, bias, 0);
      lse[i * ldl] = softmax(row, base + i + 1, by);
      blank(row, base + i + 1, L);
    }
    gather(n, hd, s, lds, base, kv + voff, ldkv, list, o, ldo);
  }
}

// The way back: dq[i] = sum_j ds k[j], dk[j] += ds q[i], dv[j] += p do[i], where p = e^(s-lse), ds = slope p (do.v[j] - sum_j p do.v[j]),
// slope being scale or what cap makes of it.
// dq is written for the first nq query rows only, dkv for the key rows < nk only.
void K(attend_back)(const float *q, long ldq, const float *kv, long ldkv, int voff, int heads, int hd, float scale, int window, float cap, const float *bias, long ldb, const int *spans, int nspans, int own, int first, int n, const float *dout, long ldo, const float *lse, long ldl, float *dq, long lddq, int nq, float *dkv, long lddkv, int nk, float *room) {
  int *list = (int *)room, L = keys(spans, nspans, own, first + n - 1, list), base = L - n, lds = (L + NR - 1) / NR * NR;
  float *k = room + lds, *v = k + (long)lds * hd, *s = v + (long)lds * hd, *d = s + (long)n * lds, *by = d + (long)n * lds;
  int past = first_seen(base, window), wanted = 0;
  list += past, L -= past, base -= past, bias = bias ? bias + past : 0;
  while (wanted < L && list[wanted] < nk) wanted++;
  turn(kv, ldkv, list, L, hd, k);
  turn(kv + voff, ldkv, list, L, hd, v);
  for (int h = 0; h < heads; h++, q += hd, dout += hd, dq += hd, lse++, bias = bias ? bias + ldb : 0) {
    against(n, hd, q, ldq, k, base, s, lds);
    against(n, hd, dout, ldo, v, base, d, lds);
    for (int i = 0; i < n; i++) {
      float *p = s + (long)i * lds, *dp = d + (long)i * lds;
      int seen = base + i + 1;
      exps(p, seen, shape(p, seen, first_seen(base + i, window), scale, cap, bias, by), lse[i * ldl]);
      V c = {};
      for (int j = 0; j < seen; j += VL) c += load(p + j) * load(dp + j);
      float mean = sum(c);
      for (int j = 0; j < seen; j += VL) store(dp + j, (cap != 0 ? load(by + j) : splat(scale)) * load(p + j) * (load(dp + j) - mean));
      blank(p, seen, L);
      blank(dp, seen, L);
    }
    if (nq > 0) gather(nq < n ? nq : n, hd, d, lds, base, kv, ldkv, list, dq, lddq);
    scatter(n, hd, d, lds, base, q, ldq, dkv, lddkv, list, wanted);
    scatter(n, hd, s, lds, base, dout, ldo, dkv + voff, lddkv, list, wanted);
  }
}
