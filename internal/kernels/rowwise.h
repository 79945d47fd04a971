// Kernels that read and write one row at a time: norms, activations, softmax, rotary positions and
// addition.

#include "args.h"
#include "vector.h"

// ---- norms ----

// out = w x r, r = 1 / sqrt(mean(x^2) + eps)
static void rms_norm(const norm_args *args) {
  const norm_args a = *args;
  float r = 1.f / sqrtf(dot(a.x, a.x, a.n) / a.n + a.eps);
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    store_n(a.out + i, load_n(a.w + i, n) * (load_n(a.x + i, n) * r), n);
  }
}

// out = r (w d - x mean(w d x) r^2); out may be d
static void rms_norm_back(const norm_args *args) {
  const norm_args a = *args;
  float r = 1.f / sqrtf(dot(a.x, a.x, a.n) / a.n + a.eps);
  V s = {};
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    s += load_n(a.w + i, n) * load_n(a.d + i, n) * load_n(a.x + i, n);
  }
  float m = sum(s) / a.n * r * r;
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    store_n(a.out + i, r * (load_n(a.w + i, n) * load_n(a.d + i, n) - load_n(a.x + i, n) * m), n);
  }
}

// the mean of x, and 1 / sqrt(variance + eps)
static void moments(const float *x, float eps, int n, float *mean, float *r) {
  V s = {}, q = {};
  for (int i = 0; i < n; i += VL) s += load_n(x + i, n - i);
  float m = sum(s) / n;
  for (int i = 0; i < n; i += VL) {
    V d = load_n(x + i, n - i) - m;
    if (n - i < VL) d = load_n((const float *)&d, n - i);
    q += d * d;
  }
  *mean = m;
  *r = 1.f / sqrtf(sum(q) / n + eps);
}

// out = w (x - mean) r + b
static void layer_norm(const norm_args *args) {
  const norm_args a = *args;
  float mean, r;
  moments(a.x, a.eps, a.n, &mean, &r);
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    V v = load_n(a.w + i, n) * ((load_n(a.x + i, n) - mean) * r) + load_n(a.b + i, n);
    store_n(a.out + i, v, n);
  }
}

// out = r (w d - mean(w d) - y mean(w d y)), y = (x - mean) r; out may be d
static void layer_norm_back(const norm_args *args) {
  const norm_args a = *args;
  float mean, r;
  moments(a.x, a.eps, a.n, &mean, &r);
  V s = {}, t = {};
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    V g = load_n(a.w + i, n) * load_n(a.d + i, n);
    s += g;
    t += g * (load_n(a.x + i, n) - mean);
  }
  float ms = sum(s) / a.n, mt = sum(t) / a.n * r * r;
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    V v = load_n(a.w + i, n) * load_n(a.d + i, n) - ms - (load_n(a.x + i, n) - mean) * mt;
    store_n(a.out + i, r * v, n);
  }
}

// ---- activations ----

// (1 - erf(|x| / sqrt(2))) / 2 to 1e-7, given e = e^(-x^2/2): Abramowitz and Stegun 7.1.26
static inline V tail(V x, V e) {
  V t = 1.f / (1.f + 0.3275911f * 0.70710678f * select_v(x < 0.f, -x, x));
  return 0.5f * e * t *
         (0.254829592f +
          t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
}

// the activation at x
INLINE V activation(const int kind, V x) {
  if (kind == SILU) return x / (1.f + vexp(-x));
  if (kind == GELU_TANH)
    return 0.5f * x * (1.f + vtanh(0.7978845608f * (x + 0.044715f * x * x * x)));
  if (kind == RELU) return select_v(x > 0.f, x, (V){});
  V q = tail(x, vexp(-0.5f * x * x));
  return x * select_v(x < 0.f, q, 1.f - q);
}

// the activation's derivative at x
INLINE V slope(const int kind, V x) {
  if (kind == SILU) {
    V s = 1.f / (1.f + vexp(-x));
    return s * (1.f + x * (1.f - s));
  }
  if (kind == GELU_TANH) {
    V t = vtanh(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.f + t) +
           0.5f * x * (1.f - t * t) * 0.7978845608f * (1.f + 0.134145f * x * x);
  }
  if (kind == RELU) return select_v(x > 0.f, splat(1.f), (V){});
  V e = vexp(-0.5f * x * x), q = tail(x, e);
  return select_v(x < 0.f, q, 1.f - q) + 0.39894228f * x * e;
}

// calls loop with a constant kind
#define EACH_KIND(loop) \
  switch (args->kind) { \
  case SILU: loop(SILU, *args); break; \
  case GELU_TANH: loop(GELU_TANH, *args); break; \
  case GELU: loop(GELU, *args); break; \
  default: loop(RELU, *args); \
  }

INLINE void act_loop(const int kind, const act_args a) {
  for (int i = 0; i < a.n; i += VL)
    store_n(a.out + i, activation(kind, load_n(a.x + i, a.n - i)), a.n - i);
}

// out = act(x)
static void act(const act_args *args) { EACH_KIND(act_loop) }

INLINE void act_back_loop(const int kind, const act_args a) {
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    store_n(a.out + i, load_n(a.d + i, n) * slope(kind, load_n(a.x + i, n)), n);
  }
}

// out = d act'(x)
static void act_back(const act_args *args) { EACH_KIND(act_back_loop) }

INLINE void gated_loop(const int kind, const act_args a) {
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    store_n(a.out + i, activation(kind, load_n(a.x + i, n)) * load_n(a.up + i, n), n);
  }
}

// out = act(x) up
static void gated(const act_args *args) { EACH_KIND(gated_loop) }

INLINE void gated_back_loop(const int kind, const act_args a) {
  for (int i = 0; i < a.n; i += VL) {
    int n = a.n - i;
    V x = load_n(a.x + i, n), up = load_n(a.up + i, n), d = load_n(a.d + i, n);
    store_n(a.out + i, d * up * slope(kind, x), n);
    store_n(a.dup + i, d * activation(kind, x), n);
  }
}

// out = d up act'(x), dup = d act(x)
static void gated_back(const act_args *args) { EACH_KIND(gated_back_loop) }
#undef EACH_KIND

// ---- softmax, addition, rotary positions ----

// l = e^(l - max), where *max becomes the largest of itself and l; returns the sum
static double softmax_part(float *l, int n, float *max) {
  float m = largest(l, n);
  *max = m = *max > m ? *max : m;
  double z = 0; // over a vocabulary a float's sum would lose digits
  for (int i = 0; i < n; i += VL) {
    V e = vexp(load_n(l + i, n - i) - m);
    if (n - i < VL) e = load_n((const float *)&e, n - i);
    store_n(l + i, e, n - i);
    z += sum(e);
  }
  return z;
}

// out = a + b; out may be a or b
static void add(const float *a, const float *b, float *out, int n) {
  int i = 0;
  for (; i + VL <= n; i += VL) store(out + i, load(a + i) + load(b + i));
  if (i < n) store_n(out + i, load_n(a + i, n - i) + load_n(b + i, n - i), n - i);
}

// In each head of dim values: (a, b), the first and the second half values, become
// (a cos - b sign sin, b cos + a sign sin).
static void rotate(float *x, int heads, int dim, int half, const float *cos, const float *sin,
                   float sign) {
  for (int h = 0; h < heads; h++, x += dim)
    for (int i = 0; i < half; i += VL) {
      int n = half - i;
      V c = load_n(cos + i, n), s = sign * load_n(sin + i, n);
      V a = load_n(x + i, n), b = load_n(x + half + i, n);
      store_n(x + i, a * c - b * s, n);
      store_n(x + half + i, b * c + a * s, n);
    }
}
