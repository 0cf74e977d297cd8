"""Decodes the stored values of a DICOM file, also where its header misstates which bits they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, RLELossless

OVERLAY_BITS = tuple(range(0x60000102, 0x60200102, 0x20000))
"""Tags of OverlayBitPosition: which unused bit of the pixels holds a drawing, as old files have it (PS3.5 8.1.2)."""

_WHOLE_WORDS = (RLELossless, JPEGLossless, JPEGLosslessSV1)  # beside uncompressed values: keep all allocated bits


def stored_values(dataset: pydicom.Dataset) -> npt.NDArray[Any]:
    """Decode the pixels.

    Bits above BitsStored are cleared if they hold an overlay. Else they belong to the values, and BitsStored is set to
    all allocated bits. Values that lie at the high end of their words, as HighBit says, are shifted down.

    Args:
        dataset: a file with its size, bits and pixels.

    Returns:
        the values, of the type that pydicom gives them.
    """
    allocated, stated = (int(dataset.get(keyword) or 0) for keyword in ("BitsAllocated", "BitsStored"))
    syntax = dataset.file_meta.TransferSyntaxUID
    if not 0 < stated < allocated or (syntax.is_encapsulated and syntax not in _WHOLE_WORDS):
        return dataset.pixel_array
    dataset.BitsStored = allocated
    words: npt.NDArray[Any] = dataset.pixel_array
    dataset.BitsStored = stated
    signed = words.dtype.kind == "i"
    low, high = int(words.min()), int(words.max())
    if -(2 ** (stated - 1)) * signed <= low and high < 2 ** (stated - signed):
        return words
    unused = allocated - stated
    overlay = any(dataset.get(tag) is not None and dataset[tag].value for tag in OVERLAY_BITS)
    shift = int(dataset.get("HighBit") or 0) + 1 - stated
    if 0 < shift <= unused and (overlay or not (words & (2**shift - 1)).any()):
        return np.asarray((words << (unused - shift)) >> unused)
    if overlay or (signed and 0 <= low and high < 2**stated):  # signed values without their sign in the unused bits
        return np.asarray((words << unused) >> unused)
    dataset.BitsStored = allocated
    return words
