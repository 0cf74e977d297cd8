"""Numbers of a DICOM header that say how a radiograph is displayed, with the faults that viewers mend.

A number that is missing, empty or not finite counts as absent: the next window, the next LUT or the picture's own range
takes its place. A 16-bit number with the wrong sign is reread as signed or unsigned, as the stored values are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.multival import MultiValue

Values = npt.NDArray[Any]

_DECIMAL = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")  # text: VR DS


@dataclass(frozen=True)
class Window:
    """A window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Attributes:
        center: its center, in values after the modality LUT.
        width: its width.
        function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.
    """

    center: float
    width: float
    function: str

    def apply(self, values: Values, low: float, high: float) -> npt.NDArray[np.float64]:
        """Map values to the output range from `low` to `high`: float64, of the shape of the values."""
        values = values.astype(np.float64)
        if self.function == "SIGMOID":
            return np.asarray((high - low) / (1 + np.exp(-4 * (values - self.center) / self.width)) + low)
        exact = self.function == "LINEAR_EXACT"
        center, width = (self.center, self.width) if exact else (self.center - 0.5, self.width - 1)
        below, above = values <= center - width / 2, values > center + width / 2
        between = ~below & ~above
        values[below], values[above] = low, high
        if between.any():
            values[between] = ((values[between] - center) / width + 0.5) * (high - low) + low
        return values


@dataclass(frozen=True)
class Table:
    """A look-up table (PS3.3 C.11.1.1.1 and C.11.2.1.1).

    Attributes:
        entries: float64 [n], n of at least 2, not all the same.
        first: the value that is mapped to the first entry.
        bits: bits of an entry, by the header.
    """

    entries: npt.NDArray[np.float64]
    first: int
    bits: int

    def apply(self, values: Values, whole_range: tuple[float, float] | None) -> npt.NDArray[np.float64]:
        """Map values; those outside the table take its ends.

        pydicom computes indices in the type of the output, so they wrap around where 8-bit entries map more than 256
        values, which is common, and above 65,535.

        Args:
            values: values to map.
            whole_range: smallest and largest possible value where they are stored values; None: they are rescaled.
        """
        first, last = self.first, len(self.entries) - 1
        reread = first + 2**16 if first < 0 else first - 2**16
        low, high = float(values.min()), float(values.max())
        impossible = whole_range is not None and not whole_range[0] <= first <= whole_range[1]
        if (impossible or first > high or first + last < low) and reread <= high and reread + last >= low:
            first = reread
        return self.entries[np.clip(np.rint(values).astype(np.int64) - first, 0, last)]


def rescale(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Rescale slope and intercept; None where both are absent or the slope is 0, which no viewer applies.

    Where one is absent, viewers take a slope of 1 or an intercept of 0.
    """
    slope, intercept = (_numbers(dataset, keyword)[0] for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0 or not (math.isfinite(slope) or math.isfinite(intercept)):
        return None
    return slope if math.isfinite(slope) else 1.0, intercept if math.isfinite(intercept) else 0.0


def window(dataset: pydicom.Dataset) -> Window | None:
    """The first usable window; a function that the standard does not know counts as LINEAR."""
    function = str(_value(dataset, "VOILUTFunction") or "").strip().upper()
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    # Not `zip(strict=True)`: some headers state more centers than widths.
    for center, width in zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False):
        wide = width >= 1 if function == "LINEAR" else width > 0
        if wide and math.isfinite(center) and math.isfinite(width):
            return Window(center, width, function)
    return None


def padding_range(dataset: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
    """Smallest and largest stored value that only fills the frame (PS3.3 C.7.5.1.1.2); None: there is none.

    Args:
        dataset: the header.
        signed: whether stored values are.
    """
    value, limit = (_numbers(dataset, key)[0] for key in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not math.isfinite(value):
        return None
    ends = [_reread(int(end), signed) for end in (value, limit if math.isfinite(limit) else value)]
    return min(ends), max(ends)


def modality_table(dataset: pydicom.Dataset) -> Table | None:
    """The first usable modality LUT."""
    return next(_tables(dataset, "ModalityLUTSequence"), None)


def voi_table(dataset: pydicom.Dataset) -> Table | None:
    """The first usable VOI LUT."""
    return next(_tables(dataset, "VOILUTSequence"), None)


def _tables(dataset: pydicom.Dataset, keyword: str) -> Iterator[Table]:
    """The usable look-up tables of a sequence; a table of zeros, say, is none."""
    order = ">" if dataset.original_encoding[1] is False else "<"
    for item in _value(dataset, keyword) or ():
        try:
            count, first, bits = (int(number) for number in item.LUTDescriptor[:3])
            count = count % 2**16 or 2**16
            data = item.LUTData
            if isinstance(data, bytes):
                data = np.frombuffer(data, dtype="u1" if len(data) <= count + 1 else f"{order}u2")
            entries = np.asarray(data, dtype=np.float64).reshape(-1)[:count]
        except (AttributeError, TypeError, ValueError, NotImplementedError):
            continue
        if len(entries) > 1 and entries.min() < entries.max():
            yield Table(entries, first, bits if 1 <= bits <= 16 else 16)


def _reread(value: int, signed: bool) -> int:
    """A 16-bit number with the sign that the stored values can have."""
    if signed:
        return value - 2**16 if value >= 2**15 else value
    return value + 2**16 if value < 0 else value


def _numbers(dataset: pydicom.Dataset, keyword: str) -> list[float]:
    """The numbers of an element, at least one; NaN stands for what is absent or no number."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    if isinstance(value, bytes) and keyword in _DECIMAL and element.VR not in ("FL", "FD"):
        # pydicom gives up a whole element where one of its numbers is damaged.
        return [_number(text) for text in value.decode("latin-1").replace("\0", "").split("\\")]
    value = _value(dataset, keyword)
    parts = list(value) if isinstance(value, MultiValue) else [value]
    return [_number(part) for part in parts] or [math.nan]


def _number(part: Any) -> float:
    """One number; a decimal comma, as some regions write it, is read as a point."""
    try:
        return float(part.replace(",", ".") if isinstance(part, str) else part)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _value(dataset: pydicom.Dataset, keyword: str) -> Any:
    """An element's value; None where it is absent or damaged."""
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # pydicom reads a value when it is asked for, and raises many kinds
        return None
