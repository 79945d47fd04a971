// The vector type of a kernel set and the functions on it. A file that includes this one has chosen
// an instruction set and has defined
//
//   VL                     floats in a vector
//   MR                     rows of a tile
//   COUNT                  0, 1, … VL-1
//   half_vector(p)         VL binary16 numbers as floats
//   half_float(h)          one binary16 number as a float
//   sum(v)                 the sum of a vector
//   widen(p)               VL uint16_t as U; optional
//
// After this file it defines read_columns.

#ifndef PTUNE_VECTOR_H
#define PTUNE_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define NR (2 * VL) // columns of a tile: two vectors
#define INLINE static inline __attribute__((always_inline))

typedef float V __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t U __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint16_t H __attribute__((vector_size(VL * 2), aligned(2), may_alias));

static inline V load(const float *p) { return *(const V *)p; }
static inline void store(float *p, V v) { *(V *)p = v; }
static inline V splat(float x) { return x - (V){}; }

// out[c] = column c of VL rows of VL floats, which lie ld bytes apart
INLINE void read_columns(const uint8_t *p, long ld, V out[VL]);

#ifndef widen
#define widen(p) __builtin_convertvector(*(const H *)(p), U)
#endif

// the first n floats, then zeros
static inline V load_n(const float *p, int n) {
  if (n >= VL) return load(p);
  V v = {};
  memcpy(&v, p, sizeof(float) * n);
  return v;
}

// writes the first n floats of v
static inline void store_n(float *p, V v, int n) {
  if (n >= VL)
    store(p, v);
  else
    memcpy(p, &v, sizeof(float) * n);
}

// yes where all bits are set, no where none is
static inline V select_v(I where, V yes, V no) {
  return (V)((where & (I)yes) | (~where & (I)no));
}

// all bits set in the first n numbers
static inline I mask_first(int n) { return (I){COUNT} < n - (I){}; }

// Writes the columns of VL rows, which lie ld bytes apart, to the rows of out, which lie ldo floats
// apart.
INLINE void transpose(const void *p, long ld, float *out, long ldo) {
  V columns[VL];
  read_columns(p, ld, columns);
#pragma GCC unroll 16
  for (int c = 0; c < VL; c++) store(out + c * ldo, columns[c]);
}

static float largest(const float *s, int n) {
  V m = splat(s[0]);
  for (int i = 0; i < n; i += VL) {
    V v = n - i < VL ? select_v(mask_first(n - i), load(s + i), m) : load(s + i);
    m = select_v(v > m, v, m);
  }
  float t = m[0];
  for (int j = 1; j < VL; j++) t = m[j] > t ? m[j] : t;
  return t;
}

// e^x, relative error about 1e-7: x = n ln2 + r, |r| <= ln2/2, a polynomial in r (Cephes' expf).
static inline V vexp(V x) {
  x = select_v(x < -87.f, splat(-87.f), x);
  x = select_v(x > 88.f, splat(88.f), x);
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

// VL partial sums of a[i] b[i]
static inline V products(const float *a, const float *b, int n) {
  V s = {};
  int i = 0;
  for (; i + VL <= n; i += VL) s += load(a + i) * load(b + i);
  if (i < n) s += load_n(a + i, n - i) * load_n(b + i, n - i);
  return s;
}

static inline float dot(const float *a, const float *b, int n) { return sum(products(a, b, n)); }

// r[0] += *a b0, r[1] += *a b1. In assembly because gcc would broadcast the values of all rows
// first and then have too few registers for the sums.
INLINE void multiply_add(V r[2], const float *a, V b0, V b1) {
#ifdef __x86_64__
  V all;
  __asm__("vbroadcastss %3, %2\n\tvfmadd231ps %2, %4, %0\n\tvfmadd231ps %2, %5, %1"
          : "+v"(r[0]), "+v"(r[1]), "=&v"(all)
          : "m"(*a), "v"(b0), "v"(b1));
#else
  r[0] += *a * b0;
  r[1] += *a * b1;
#endif
}

// *r += *a b
INLINE void multiply_add_one(V *r, const float *a, V b) {
#ifdef __x86_64__
  V all;
  __asm__("vbroadcastss %2, %1\n\tvfmadd231ps %1, %3, %0" : "+v"(*r), "=&v"(all) : "m"(*a), "v"(b));
#else
  *r += *a * b;
#endif
}

#endif
