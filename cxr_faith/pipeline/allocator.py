"""Memory of large temporary tensors, kept for the next ones while a CPU runs the model.

glibc gives every large block back to the system when it is freed, and asks for it again a moment later: each time each
of its pages is cleared and mapped anew, which takes about an eighth of a small model's time.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_KEPT, _DEFAULT = (2**31 - 1, 0), (128 * 1024, 65536)


@contextmanager
def large_blocks_kept(device: torch.device) -> Iterator[None]:
    """Keep freed blocks inside; behind it they go back to the system.

    Does nothing on a GPU, without glibc, and where the environment tunes its allocator (`MALLOC_…`).
    """
    library: Any = ctypes.CDLL(None)
    has_own = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    if device.type != "cpu" or not has_own or any(name.startswith("MALLOC_") for name in os.environ):
        yield
        return
    _set(library, *_KEPT)
    try:
        yield
    finally:
        _set(library, *_DEFAULT)
        library.malloc_trim(0)


def _set(library: Any, trim_threshold: int, mmap_max: int) -> None:
    library.mallopt(_TRIM_THRESHOLD, trim_threshold)
    library.mallopt(_MMAP_MAX, mmap_max)
