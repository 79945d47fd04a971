// Quantised formats of ggml, turned into f32. The layouts are those of ggml-common.h of llama.cpp; the
// plain loops are in quant.go. A block holds 32 or 256 values with their scales. All formats are read
// 16 values at a time, a run: no scale changes within it.
//
// Every product of scales and of a quantised number is exact in f32, so a fused multiply-add gives the
// same bits as two instructions.

#include "args.h"
#include "vector.h"

static const int8_t IQ4_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

INLINE float half_at(const uint8_t *p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return half_float(h);
}

// out[i] = d q[i] + m, where q[i] is four bits of low, shifted right, and one bit of high
INLINE void run_4bits(const uint8_t *low, int shift, const uint8_t *high, int bit, float d, float m,
                      float *out) {
  for (int i = 0; i < 16; i++) {
    int q = low[i] >> shift & 15;
    if (high) q |= (high[i] >> bit & 1) << 4;
    out[i] = d * (float)q + m;
  }
}

// out[i] = d (q[i] - less), where q[i] is four bits of low, shifted right, and a bit of high from bit on
INLINE void run_signed(const uint8_t *low, int shift, uint32_t high, int less, float d, float *out) {
  for (int i = 0; i < 16; i++) {
    int q = (low[i] >> shift & 15) | (int)(high >> i & 1) << 4;
    out[i] = d * (float)(q - less);
  }
}

INLINE void run_iq4(const uint8_t *low, int shift, float d, float *out) {
  for (int i = 0; i < 16; i++) out[i] = d * (float)IQ4_VALUES[low[i] >> shift & 15];
}

// The scale and the minimum of 32 values of Q4_K and Q5_K.
INLINE void scale_min(const uint8_t *s, int j, int *scale, int *min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[4 + j] & 63;
  } else {
    *scale = (s[4 + j] & 15) | (s[j - 4] >> 2 & 0x30);
    *min = s[4 + j] >> 4 | (s[j] >> 2 & 0x30);
  }
}

// run g of a block
INLINE void run(const int format, const uint8_t *b, int g, float *out) {
  switch (format) {
  case Q8_0: {
    const float d = half_at(b);
    const int8_t *q = (const int8_t *)b + 2 + 16 * g;
    for (int i = 0; i < 16; i++) out[i] = d * (float)q[i];
    return;
  }
  case Q4_0: run_signed(b + 2, 4 * g, 0, 8, half_at(b), out); return;
  case Q4_1: run_4bits(b + 4, 4 * g, 0, 0, half_at(b), half_at(b + 2), out); return;
  case Q5_0:
  case Q5_1: {
    const int at = format == Q5_0 ? 2 : 4;
    uint32_t high;
    memcpy(&high, b + at, 4);
    high >>= 16 * g;
    if (format == Q5_0) {
      run_signed(b + 6, 4 * g, high, 16, half_at(b), out);
      return;
    }
    const float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 16; i++)
      out[i] = d * (float)((b[8 + i] >> 4 * g & 15) | (int)(high >> i & 1) << 4) + m;
    return;
  }
  case Q2_K: {
    const float d = half_at(b + 80) * (float)(b[g] & 15), m = half_at(b + 82) * (float)(b[g] >> 4);
    const uint8_t *q = b + 16 + 32 * (g / 8) + 16 * (g & 1);
    const int shift = 2 * (g / 2 & 3);
    for (int i = 0; i < 16; i++) out[i] = d * (float)(q[i] >> shift & 3) - m;
    return;
  }
  case Q3_K: {
    const uint8_t *s = b + 96;
    const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + (g & 3)] >> 2 * (g / 4) & 3;
    const float d = half_at(b + 108) * (float)((low | high << 4) - 32);
    const uint8_t *q = b + 32 + 32 * (g / 8) + 16 * (g & 1), *mask = b + 16 * (g & 1);
    const int shift = 2 * (g / 2 & 3), bit = g / 2;
    for (int i = 0; i < 16; i++)
      out[i] = d * (float)((q[i] >> shift & 3) - 4 + ((mask[i] >> bit & 1) << 2));
    return;
  }
  case Q4_K:
  case Q5_K: {
    int scale, min;
    scale_min(b + 4, g / 2, &scale, &min);
    const uint8_t *low = b + (format == Q4_K ? 16 : 48) + 32 * (g / 4) + 16 * (g & 1);
    run_4bits(low, 4 * (g / 2 & 1), format == Q4_K ? 0 : b + 16 + 16 * (g & 1), g / 2,
              half_at(b) * (float)scale, -(half_at(b + 2) * (float)min), out);
    return;
  }
  case Q6_K: {
    const uint8_t *low = b + 64 * (g / 8) + 32 * (g / 2 & 1) + 16 * (g & 1);
    const uint8_t *high = b + 128 + 32 * (g / 8) + 16 * (g & 1);
    const float d = half_at(b + 208) * (float)((const int8_t *)b)[192 + g];
    const int shift = 4 * (g / 4 & 1), bits = 2 * (g / 2 & 3);
    for (int i = 0; i < 16; i++)
      out[i] = d * (float)(((low[i] >> shift & 15) | (high[i] >> bits & 3) << 4) - 32);
    return;
  }
  case IQ4_NL: run_iq4(b + 2, 4 * g, half_at(b), out); return;
  case IQ4_XS: {
    const int j = g / 2, high = (b[2 + j / 4] >> 2 * (j & 3) & 3) << 4;
    const int scale = (b[4 + j / 2] >> 4 * (j & 1) & 15) | high;
    run_iq4(b + 8 + 16 * j, 4 * (g & 1), half_at(b) * (float)(scale - 32), out);
    return;
  }
  }
  __builtin_unreachable(); // every format has a case above
}

INLINE void floats_of(const int format, const int values, const int bytes, const floats_args *args) {
  const floats_args a = *args;
  for (int r = 0; r < a.rows; r++) {
    float *out = a.out + (long)r * a.n;
    long run_at = (a.at + r * a.ld) / 16;
    for (int i = 0; i < a.n; i += 16, run_at++)
      run(format, a.w + run_at / (values / 16) * bytes, run_at % (values / 16), out + i);
  }
}

static void floats(const floats_args *args) {
  switch (args->format) {
#define X(format, values, bytes) \
  case format: floats_of(format, values, bytes, args); break;
    QUANTISED(X)
#undef X
  }
}
