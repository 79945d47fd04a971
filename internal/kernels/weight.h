// The formats of weights in files. A row of a weight is a sequence of blocks. In X(name, values,
// bytes, parts) a block encodes `values` numbers in `bytes` bytes: a plain number is a block of one
// value, a quantised format has blocks of 32 or 256 values with their scales. Kernels name a value by
// its index i from the weight's first value, never by an address, so only the functions that read
// values know how a block is laid out.
//
// parts is how many bf16 values add up exactly to one value; at most 3, which hold any f32.
//
// To add a format, see the comment of formats in format.go.

#ifndef PTUNE_WEIGHT_H
#define PTUNE_WEIGHT_H

#include <stdint.h>

//       X(name, values, bytes, parts), in the order of format.go
#define FORMATS(X) \
  X(F32, 1, 4, 3) \
  X(BF16, 1, 2, 1) \
  X(F16, 1, 2, 2)

// The quantised formats: X(name, values, bytes). Products read them as panels of f32, which quant.h
// makes.
#define QUANTISED(X) \
  X(Q8_0, 32, 34) \
  X(Q4_0, 32, 18) \
  X(Q4_1, 32, 20) \
  X(Q5_0, 32, 22) \
  X(Q5_1, 32, 24) \
  X(Q2_K, 256, 84) \
  X(Q3_K, 256, 110) \
  X(Q4_K, 256, 144) \
  X(Q5_K, 256, 176) \
  X(Q6_K, 256, 210) \
  X(IQ4_NL, 32, 18) \
  X(IQ4_XS, 256, 136)

#define X(name, ...) name,
enum { FORMATS(X) QUANTISED(X) };
#undef X

static inline int block_values(int format) {
  switch (format) {
#define X(name, values, bytes, parts) \
  case name: return values;
    FORMATS(X)
#undef X
  }
  return 1;
}

static inline int format_parts(int format) {
  switch (format) {
#define X(name, values, bytes, parts) \
  case name: return parts;
    FORMATS(X)
#undef X
  }
  return 3;
}

// bytes_of returns the bytes of n values. It is exact if they are whole blocks.
static inline long bytes_of(int format, long n) {
  switch (format) {
#define X(name, values, bytes, parts) \
  case name: return n * (bytes) / (values);
    FORMATS(X)
#undef X
  }
  return 0;
}

#endif
