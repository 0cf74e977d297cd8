"""Turns the stored values of DICOM radiographs into 8-bit gray, in the order that the standard requires.

Stored pixels → modality LUT → VOI LUT or window → inversion of MONOCHROME1 → 8 bit (DICOM PS3.3 C.11, PS3.4 N.2).
Inverting before the window is a common mistake: the window then shows another part of the range.

Every step acts on single values, so it acts on the values that occur instead of on all pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from cxr_faith.data.display_header import modality_table, padding_range, rescale, voi_table, window

Values = npt.NDArray[Any]

_TABLE = 2**16  # largest span of stored values for which a look-up table is made
_BLOCK = 2**20  # pixels that are looked up at a time: indices take eight bytes each


class ConstantError(ValueError):
    """A picture that would show nothing but one gray."""


def display(stored: Values, dataset: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    """Show a radiograph as viewers do.

    The first usable VOI LUT sets the displayed range, else the first usable window, else the picture's own range.
    Padding pixels (PixelPaddingValue) are black and do not count for the range.

    Args:
        stored: stored values, integer [H, W].
        dataset: the header.

    Returns:
        uint8 [H, W].

    Raises:
        ConstantError: everything outside the padding is of one gray.
        ValueError: the header's numbers give no finite gray values.
    """
    levels = _levels(stored)
    padding = _padding(levels, dataset)
    shown = _display_range(levels, dataset, ~padding)
    if not np.isfinite(shown).all():
        raise ValueError("rescale and window give gray values that are not finite")
    gray = np.rint(shown * 255.0).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    exposed = gray[~padding]
    if (exposed == exposed[0]).all():
        where = "pixel outside the padding" if padding.any() else "pixel"
        raise ConstantError(f"the picture is constant: every {where} is {exposed[0]} as it would be displayed")
    gray[padding] = 0
    return _looked_up(stored, levels, gray)


def _padding(levels: Values, dataset: pydicom.Dataset) -> npt.NDArray[np.bool_]:
    """Which stored values only fill the frame outside the exposed field: bool, of the shape of the levels."""
    limits = padding_range(dataset, signed=levels.dtype.kind == "i")
    if limits is None:
        return np.zeros(levels.shape, dtype=bool)
    padding = (levels >= limits[0]) & (levels <= limits[1])
    return np.zeros_like(padding) if padding.all() else padding


def _display_range(levels: Values, dataset: pydicom.Dataset, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Apply modality LUT or rescale, then VOI LUT or window, and scale the displayed range to 0 … 1."""
    values: Values = levels
    # Smallest and largest value before and after the modality LUT or rescale; windows map to the latter.
    half = 2.0 ** (int(dataset.BitsStored) - 1)
    stored_range = output_range = (-half, half - 1) if levels.dtype.kind == "i" else (0.0, 2 * half - 1)
    table, linear = modality_table(dataset), rescale(dataset)
    if table is not None:
        values, output_range = table.apply(levels, stored_range), (0.0, 2.0**table.bits - 1)
    elif linear is not None:
        slope, intercept = linear
        values = levels.astype(np.float64) * slope
        values += intercept
        output_range = output_range[0] * slope + intercept, output_range[1] * slope + intercept
    voi = voi_table(dataset)
    if voi is not None:
        unchanged = table is None and linear is None
        return _scale(voi.apply(values, stored_range if unchanged else None), voi.entries.min(), voi.entries.max())
    view = window(dataset)
    if view is not None:
        # With a negative slope the low end of the output range is the larger number.
        with np.errstate(over="ignore"):
            low, high = view.apply(np.array([-1e30, 1e30]), *output_range)
            return _scale(view.apply(values, *output_range), low, high)
    return _scale(values, values[inside].min(), values[inside].max())


def _scale(values: Values, low: float, high: float) -> npt.NDArray[np.float64]:
    """Map `low` to 0 and `high` to 1, even where `low` is the larger number; a flat picture is black."""
    low, high = float(low), float(high)
    if low == high:
        return np.zeros(values.shape, dtype=np.float64)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def _levels(stored: Values) -> Values:
    """The distinct stored values, ascending, of the type of the pixels."""
    lowest, highest = int(stored.min()), int(stored.max())
    if highest - lowest >= _TABLE:
        return np.unique(stored)
    occurs = np.zeros(highest - lowest + 1, dtype=bool)
    pixels = stored.reshape(-1)
    for start in range(0, pixels.size, _BLOCK):
        occurs[pixels[start : start + _BLOCK].astype(np.int64) - lowest] = True
    return (np.flatnonzero(occurs) + lowest).astype(stored.dtype)


def _looked_up(stored: Values, levels: Values, gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The gray of every pixel from the gray of every level: uint8 [H, W]."""
    lowest, span = int(levels[0]), int(levels[-1]) - int(levels[0]) + 1
    pixels, shown = stored.reshape(-1), np.empty(stored.size, dtype=np.uint8)
    table = np.zeros(span if span <= _TABLE else 0, dtype=np.uint8)
    if table.size:
        table[levels.astype(np.int64) - lowest] = gray
    for start in range(0, pixels.size, _BLOCK):
        block = pixels[start : start + _BLOCK]
        index = block.astype(np.int64) - lowest if table.size else np.searchsorted(levels, block)
        shown[start : start + _BLOCK] = (table if table.size else gray)[index]
    return shown.reshape(stored.shape)
