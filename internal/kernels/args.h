// What Go and C share: the arguments of the kernels and the table of a kernel set. Go fills these
// structs (native.go), a kernel set is one constant (set.h).
//
// ld… is the distance between rows, in values.

#ifndef PTUNE_ARGS_H
#define PTUNE_ARGS_H

#include <stdint.h>

#include "weight.h"

enum { SILU, GELU_TANH, GELU, RELU }; // in the order of act.go

// Packs rows of x for product: blocks b0 <= b < b1 of block_rows rows each.
typedef struct {
  const float *x;
  long ldx;
  int m, k;   // rows and columns of x
  int parts;  // bf16 parts of a packed value; bf16 sets only
  int in_out; // of the weight that follows; bf16 sets only
  int b0, b1;
  float *packed;
} pack_args;

// out[m][n] (+)= sum over k of x[m][k] w(k, n) for the columns n0 <= n < n1.
typedef struct {
  const float *x; // packed, except for few_rows
  long ldx;       // few_rows only
  int m, k;
  int xparts, wparts; // bf16 parts of a value of x and of a weight; bf16 sets only
  const uint8_t *w;   // stored [k, n] if in_out, else [n, k]
  int format, in_out;
  long ldw;
  int n0, n1;
  float *out;
  long ldo;
  int add;     // add to out instead of writing it
  float *scratch; // scratch_floats values for panels of weights; product only
} product_args;

// Turns a quantised weight into f32: out[r][i] is value at + r ld + i, for i < n. at, ld and n are
// multiples of 16.
typedef struct {
  const uint8_t *w;
  int format;
  long at, ld;
  int rows, n;
  float *out;
} floats_args;

// Attention of n query rows of a group over one key head, for the query heads that share it.
// Row i of the group sees the key rows of its spans, then own to own+i. (Group in attention.go.)
typedef struct {
  const float *q; // query of row first, first head; heads follow each other
  long ldq;
  const float *kv; // key of row 0
  long ldkv;
  int value;      // floats from a row's key to its value
  int heads, dim; // query heads, floats of a head
  float scale;
  int window;        // key rows that a query sees at most; 0: all
  float cap;         // scores s become cap tanh(s / cap); 0: unchanged
  const float *bias; // of the first head and position 0, added to scores; NULL: none
  long ldb;
  const int32_t *spans; // nspans times from, to
  int nspans, own, first, n;
  int rows_at_once; // query rows whose scores are kept at a time
  float *out; // attend writes it; for attend_back it is the gradient of what attend wrote
  long ldo;
  float *lse; // log of each softmax's denominator: attend writes it, attend_back reads it
  long ldl;
  float *scratch; // as many as attention.scratch returns
} attend_args;

typedef struct {
  attend_args of;
  float *dq; // written for the first nq of the n query rows
  long lddq;
  int nq;
  float *dkv, *before; // gradients are added: of key rows < from to before, of others < nk to dkv
  long lddkv;
  int from, nk;
} attend_back_args;

// Norms of one row of n values.
typedef struct {
  const float *x, *w, *b; // b: layer_norm only
  const float *d;         // gradient of the norm's output; …_back only
  float eps;
  float *out;
  int n;
} norm_args;

// Activations of one row of n values. Outputs may be inputs.
typedef struct {
  int kind;
  const float *x, *up; // up: gated kernels only
  const float *d;      // gradient of the activation's output; …_back only
  float *out, *dup;    // dup: gated_back only
  int n;
} act_args;

typedef void pack_kernel(const pack_args *);
typedef void product_kernel(const product_args *);
typedef void floats_kernel(const floats_args *);
typedef void attend_kernel(const attend_args *);
typedef void attend_back_kernel(const attend_back_args *);
typedef void norm_kernel(const norm_args *);
typedef void act_kernel(const act_args *);
typedef void add_kernel(const float *a, const float *b, float *out, int n);
typedef void rotate_kernel(float *x, int heads, int dim, int half, const float *cos,
                           const float *sin, float sign);
typedef double softmax_part_kernel(float *l, int n, float *max);
typedef float peak_kernel(long n, const float *x);

typedef struct {
  int block_rows;    // rows of x that are packed together
  int depth;         // columns of packed x are a multiple of this
  int panel_columns; // columns of a panel of weights
  int share_panels;  // panels of one call of product, at most
  int scratch_floats;   // of product_args.scratch
  pack_kernel *pack;
  product_kernel *product;
  product_kernel *few_rows;   // x is not packed; at most 16 rows, 4 if in_out. Not in bf16 sets
  product_kernel *few_packed; // at most 16 rows and not in_out. Only in bf16 sets
} product_kernels;

typedef struct {
  product_kernels products;
  floats_kernel *floats;
  attend_kernel *attend;
  attend_back_kernel *attend_back;
  norm_kernel *rms_norm, *rms_norm_back, *layer_norm, *layer_norm_back;
  act_kernel *act, *act_back, *gated, *gated_back;
  add_kernel *add;
  rotate_kernel *rotate;
  softmax_part_kernel *softmax_part;
  peak_kernel *peak;
  int peak_flops; // of one round of peak
} kernel_set;

extern const kernel_set ptune_avx2, ptune_avx512, ptune_neon;
extern const product_kernels ptune_bf16, ptune_amx; // they replace the products of ptune_avx512

int ptune_amx_allowed(void); // asks the operating system for AMX's registers

#endif
