"""Damaged copies of files, as disks, networks and broken tools leave them."""

from collections.abc import Iterator

import numpy as np


def damaged_copies(content: bytes, copies: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Copies of a file with one to three kinds of damage each.

    Args:
        content: the whole file.
        copies: number of copies.
        rng: decides on kinds and places.

    Yields:
        the content of each copy.
    """
    for _ in range(copies):
        copy = bytearray(content)
        for kind in rng.choice(len(_KINDS), rng.choice([1, 1, 2, 3])):
            if len(copy) > 8:
                _KINDS[kind](copy, rng)
        yield bytes(copy)


def _range(copy: bytearray, rng: np.random.Generator, longest: int = 600) -> slice:
    """A part of a file; half of them start near its beginning, where headers are."""
    start = int(rng.integers(len(copy) if rng.random() < 0.5 else min(len(copy), 500)))
    return slice(start, start + int(rng.integers(1, rng.choice([8, longest]))))


def _cut(copy: bytearray, rng: np.random.Generator) -> None:
    del copy[rng.integers(len(copy)) :]


def _flip_bits(copy: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 9)):
        copy[_range(copy, rng).start] ^= 1 << int(rng.integers(8))


def _zero(copy: bytearray, rng: np.random.Generator) -> None:
    part = _range(copy, rng)
    copy[part] = bytes(len(copy[part]))


def _swap(copy: bytearray, rng: np.random.Generator) -> None:
    """Exchange a part with the one behind it, of any length."""
    part, length = _range(copy, rng), int(rng.integers(1, 600))
    behind = copy[part.stop : part.stop + length]
    copy[part.start : part.stop + length] = behind + copy[part]


def _repeat(copy: bytearray, rng: np.random.Generator) -> None:
    part = _range(copy, rng)
    copy[part.start : part.start] = copy[part] * int(rng.integers(1, 20))


def _remove(copy: bytearray, rng: np.random.Generator) -> None:
    del copy[_range(copy, rng)]


def _wrong_length(copy: bytearray, rng: np.random.Generator) -> None:
    """Replace what may be a length or a count by an extreme one, in either byte order."""
    number = int(rng.choice([0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 2, 2**32 - 1]))
    size, start = int(rng.choice([2, 4])), _range(copy, rng).start
    copy[start : start + size] = (number % 2 ** (8 * size)).to_bytes(size, str(rng.choice(["big", "little"])))


_KINDS = (_cut, _flip_bits, _zero, _swap, _repeat, _remove, _wrong_length)
