// The kernels for NEON.

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define KERNEL_SET ptune_neon
#define VL 4
#define COUNT 0, 1, 2, 3
#define MR 12
#define half_vector(p) ((V)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))))
#define sum(v) vaddvq_f32((float32x4_t)(v))

static inline float half_float(uint16_t h) {
  __fp16 f;
  memcpy(&f, &h, 2);
  return f;
}

#include "vector.h"

// out[c] = column c of VL rows, which lie ld bytes apart
INLINE void read_columns(const uint8_t *p, long ld, V out[VL]) {
  float32x4_t r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r[i] = vreinterpretq_f32_u8(vld1q_u8(p + i * ld));
  float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    out[i] = (V)vcombine_f32(vget_low_f32(a.val[i]), vget_low_f32(b.val[i]));
    out[2 + i] = (V)vcombine_f32(vget_high_f32(a.val[i]), vget_high_f32(b.val[i]));
  }
}

#include "set.h"
