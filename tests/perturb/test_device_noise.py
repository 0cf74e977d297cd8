"""Noise from a counter: published vectors of Philox, the slow twin, and the distribution.

That an accelerator draws the same values is seen in `tests/test_accelerator.py`, and on a GPU in `tests/test_gpu.py`.
"""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from cxr_faith.perturb.device_noise import device_noise, philox
from cxr_faith.perturb.schedule import stream_key
from tests.reference import philox as twin

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (4 * (2**32 - 1,), 2 * (2**32 - 1,), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_vectors(counter, key, words):
    """Those of the Random123 library."""
    computed = philox(tuple(torch.tensor([word]) for word in counter), key[0] | key[1] << 32)
    assert tuple(int(word) for word in computed) == words == tuple(twin.philox(counter, key))


def test_the_slow_twin_draws_the_same():
    drawn = device_noise(3, "image", "noise", "method", 0, 1001, CPU)
    expected = twin.normal_noise(stream_key(3, "image", "noise", "method"), (1001,))
    assert drawn.dtype == torch.float32 and np.abs(drawn.numpy() - expected).max() < 1e-6


def test_a_value_does_not_depend_on_the_part_that_it_is_drawn_in():
    whole = device_noise(3, "image", "noise", "method", 0, 100, CPU)
    for start, count in ((0, 1), (5, 2), (8, 8), (7, 30), (63, 37)):
        part = device_noise(3, "image", "noise", "method", start, count, CPU)
        assert torch.equal(part, whole[start : start + count])
    far = device_noise(3, "image", "noise", "method", 2**40, 16, CPU)
    assert torch.equal(far[8:], device_noise(3, "image", "noise", "method", 2**40 + 8, 8, CPU))


def test_the_values_are_normal_and_independent():
    count = 2**20
    rows = [device_noise(0, image, "noise", "method", 0, count, CPU).double().numpy() for image in ("a", "b")]
    for row in rows:
        assert kstest(row, "norm").statistic < 1.6 / count**0.5  # passes with a probability of .99
        assert abs(row.mean()) < 4 / count**0.5 and abs(row.var() - 1) < 4 * (2 / count) ** 0.5
        assert abs((row**4).mean() - 3) < 0.05
        # The eight values of a counter, and those of the next one.
        for lag in range(1, 17):
            assert abs((row[lag:] * row[:-lag]).mean()) < 4.5 / count**0.5, lag
    assert abs((rows[0] * rows[1]).mean()) < 4 / count**0.5
