"""Gaussian noise that is drawn on the device where it is needed, with the same bits on every device.

Philox (Salmon et al. 2011) makes random bits from a key and a counter, in integers alone. A table from the host turns
16 of them into a normal value, since devices round logarithms and cosines differently.
"""

from functools import lru_cache

import torch
from scipy.special import ndtri
from torch import Tensor

from cxr_faith.perturb.schedule import stream_key

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_LEVELS = 2**16
_AT_ONCE = 8
"""Normal values of one counter: four words of 32 bits, 16 for each."""


def device_noise(
    seed: int, image_id: str, purpose: str, method: str, start: int, count: int, device: torch.device
) -> Tensor:
    """A part of an image's endless row of standard normal values, float32 [count].

    Args:
        seed: the run's seed.
        image_id: the manifest's image id.
        purpose: what is drawn.
        method: the method's name.
        start: index of the first value; a value depends on its index, not on the part that it is drawn in.
        count: number of values.
        device: where they are made.
    """
    first = start // _AT_ONCE
    counters = torch.arange(first, -(-(start + count) // _AT_ONCE), device=device)
    zero = torch.zeros_like(counters)
    words = torch.stack(
        philox((counters & _WORD, counters >> 32, zero, zero), stream_key(seed, image_id, purpose, method))
    )
    levels = torch.stack([words & (_LEVELS - 1), words >> 16]).flatten(0, 1)
    return _normal_levels(device)[levels.T.flatten()[start - first * _AT_ONCE :][:count]]


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random words of 32 bits for each counter of four words; int64 tensors hold the words.

    Args:
        counter: its words, lowest first.
        key: 64 bits.
    """
    (a, b, c, d), low, high = counter, key & _WORD, key >> 32 & _WORD
    for _ in range(_ROUNDS):
        # A product of two words has 64 bits; int64 keeps them all, though it may read them as negative.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> 32 & _WORD) ^ b ^ low, right & _WORD, (left >> 32 & _WORD) ^ d ^ high, left & _WORD
        low, high = low + _KEY_STEPS[0] & _WORD, high + _KEY_STEPS[1] & _WORD
    return a, b, c, d


@lru_cache(maxsize=8)
def _normal_levels(device: torch.device) -> Tensor:
    """Quantiles of the normal distribution at the middles of equal shares, scaled to a variance of 1."""
    middles = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    quantiles = torch.from_numpy(ndtri(middles.numpy()))
    return (quantiles / quantiles.square().mean().sqrt()).float().to(device)
