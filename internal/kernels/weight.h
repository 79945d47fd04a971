// What every file of products knows of weights.

enum { F32, BF16, F16 };

static inline int size(int dtype) { return dtype == F32 ? 4 : 2; } // bytes of a value
