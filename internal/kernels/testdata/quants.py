"""Prints the golden hashes of quant_test.go: of the values of 10,000 blocks of each format, as the gguf
package (PyPI, 0.19.0) computes them. pip install gguf; python quants.py
"""

import hashlib

import numpy as np
from gguf import GGMLQuantizationType as T, quants

BLOCKS = 10_000
# Bytes of a block, and the places of the upper bytes of its F16 scales.
FORMATS = {
    T.Q8_0: (34, [1]), T.Q4_0: (18, [1]), T.Q4_1: (20, [1, 3]), T.Q5_0: (22, [1]),
    T.Q5_1: (24, [1, 3]), T.Q2_K: (84, [81, 83]), T.Q3_K: (110, [109]), T.Q4_K: (144, [1, 3]),
    T.Q5_K: (176, [1, 3]), T.Q6_K: (210, [209]), T.IQ4_NL: (18, [1]), T.IQ4_XS: (136, [1]),
}

for t, (size, scales) in FORMATS.items():
    # A linear congruential generator (Knuth's MMIX); a byte is the upper eight bits of a state.
    states, state = np.empty(BLOCKS * size, np.uint8), 1
    for i in range(len(states)):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        states[i] = state >> 56
    blocks = states.reshape(BLOCKS, size)
    for at in scales:
        blocks[:, at] &= 0xBF  # no NaN and no infinity
    values = quants.dequantize(blocks, t).astype(np.float32)
    print(f'{t.name}: "{hashlib.sha256(values.tobytes()).hexdigest()[:32]}",')
