"""Philox4x32-10 (Salmon et al. 2011) in Python integers of unsigned 64 bits, and normal noise made of its bits."""

import numpy as np
from scipy.stats import norm


def philox(counter, key):
    """Four words for a counter of four words and a key of two, as in the paper's figure."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right % 2**32, (left >> 32) ^ c[3] ^ k[1], left % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def normal_noise(key, shape):
    """Of each word the lower halves, then the upper halves, as quantiles of the normal distribution."""
    levels, size = [], int(np.prod(shape))
    for counter in range(-(-size // 8)):
        words = philox((counter, 0, 0, 0), (key % 2**32, key >> 32))
        levels += [word % 2**16 for word in words] + [word >> 16 for word in words]
    quantiles = norm.ppf((np.arange(2**16) + 0.5) / 2**16)
    return (quantiles / quantiles.std())[levels[:size]].reshape(shape)
