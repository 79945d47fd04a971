// What every file of products knows of weights.

enum { F32, BF16, F16 };

static inline int size(int dtype) { return dtype == F32 ? 4 : 2; } // bytes of a value

// asks for share i of n of a panel's weights: the outputs n to n+nb of the inputs k0 to k0+kb
static inline void fetch(const void *w, int dtype, int in_out, long ld, int n, int nb, int k0, int kb, int i, int of) {
  int rows = in_out ? kb : nb;
  long bytes = (long)(in_out ? nb : kb) * size(dtype);
  const char *from = (const char *)w + size(dtype) * (in_out ? k0 * ld + n : n * ld + k0);
  for (long r = (long)rows * i / of; r < (long)rows * (i + 1) / of; r++)
    for (long at = 0; at < bytes; at += 64) __builtin_prefetch(from + r * ld * size(dtype) + at, 0, 2);
}
