// The kernels for NEON.

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define KERNEL_SET ptune_neon
#define VL 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define MR 12
#define half_vector(p) ((V)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))))
#define sum(v) vaddvq_f32((float32x4_t)(v))

static inline float half_float(uint16_t h) {
  __fp16 f;
  memcpy(&f, &h, 2);
  return f;
}

// out[c][r] = t[r][c], columns ld apart
static inline void transpose(float t[4][4], float *out, long ld) {
  float32x4x4_t c = vld4q_f32(t[0]);
  for (int i = 0; i < 4; i++) vst1q_f32(out + i * ld, c.val[i]);
}

#include "set.h"
