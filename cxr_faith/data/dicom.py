"""Turns the stored values of DICOM radiographs into 8-bit gray, in the order that the standard requires.

Stored pixels → modality LUT → VOI LUT or window → inversion of MONOCHROME1 → 8 bit (DICOM PS3.3 C.11, PS3.4 N.2).
Inverting before the window is a common mistake: the window then shows another part of the range.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from cxr_faith.data.codestream import codestream_size

GRAY = ("MONOCHROME1", "MONOCHROME2")

# What pydicom raises on damaged files, depending on where the damage is.
_FAULTS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class DicomError(ValueError):
    """A DICOM file that does not hold one usable radiograph."""


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its suffix or by the letters DICM after the preamble."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Read one radiograph as it is meant to be viewed: air dark, bone bright.

    The first VOI LUT sets the displayed range, else the first window, else the picture's own range. Padding pixels
    (PixelPaddingValue) are black and do not count for the range.

    Args:
        path: DICOM file.
        max_pixels: largest rows × columns that are decoded.

    Returns:
        uint8 [H, W], or [H, W, 3] for a color picture.

    Raises:
        DicomError: not DICOM, no pixels, several frames, too large, or a transfer syntax that no decoder reads.
    """
    try:
        dataset = pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise DicomError("not a DICOM file") from error
    except _FAULTS as error:
        raise DicomError(f"damaged DICOM file ({error})") from error
    try:
        _check(dataset, max_pixels)
        return _render(dataset)
    except DicomError:
        raise
    except _FAULTS as error:
        syntax = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        hint = "; pip install 'cxr-faith[dicom]'" if "missing" in str(error) else ""
        raise DicomError(f"DICOM pixels cannot be read (transfer syntax {syntax}): {error}{hint}") from error


def read_dicom_size(path: Path) -> tuple[int, int]:
    """Rows and columns, from the header alone.

    Raises:
        DicomError: not DICOM, damaged, or without a size.
    """
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    except InvalidDicomError as error:
        raise DicomError("not a DICOM file") from error
    except _FAULTS as error:
        raise DicomError(f"damaged DICOM file ({error})") from error
    if not rows or not columns:
        raise DicomError("DICOM file without pixels")
    return rows, columns


def _check(dataset: pydicom.Dataset, max_pixels: int) -> None:
    """Refuse, before decoding, what is not one gray or color picture of a plausible size."""
    if "PixelData" not in dataset:
        raise DicomError("DICOM file without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DicomError(f"DICOM file with {frames} frames, expected one picture")
    pixels = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    if pixels > max_pixels:
        raise DicomError(f"{pixels} pixels are more than the {max_pixels} allowed")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # The decoder allocates the size in the compressed stream's own header, which may differ from the DICOM header.
        stated = codestream_size(next(generate_frames(dataset.PixelData, number_of_frames=1), b""))
        if stated is not None and stated != (dataset.get("Rows"), dataset.get("Columns")):
            size = f"{dataset.get('Rows')}×{dataset.get('Columns')}"
            raise DicomError(f"compressed picture is {stated[0]}×{stated[1]} px, the DICOM header says {size}")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in GRAY and int(dataset.get("SamplesPerPixel") or 1) != 3:
        raise DicomError(f"photometric interpretation {photometric} is not {' or '.join(GRAY)}")


def _render(dataset: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    """Convert stored values to 8-bit gray; pydicom has already converted color to RGB."""
    stored = dataset.pixel_array
    if stored.ndim == 3 and stored.dtype == np.uint8:
        return np.ascontiguousarray(stored)
    if stored.ndim != 2:
        raise DicomError(f"pixels of shape {stored.shape} and type {stored.dtype} are not a radiograph")
    padding = _padding(stored, dataset)
    shown = _display_range(apply_modality_lut(stored, dataset), dataset, ~padding)
    gray = np.rint(shown * 255.0).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    gray[padding] = 0
    return gray


def _padding(stored: npt.NDArray[Any], dataset: pydicom.Dataset) -> npt.NDArray[np.bool_]:
    """Where stored values only fill the frame outside the exposed field (PS3.3 C.7.5.1.1.2): bool [H, W]."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    padding = (stored >= low) & (stored <= high)
    return np.zeros_like(padding) if padding.all() else padding


def _display_range(
    values: npt.NDArray[Any], dataset: pydicom.Dataset, inside: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Apply the VOI LUT or window and scale the displayed range to 0 … 1: float64 [H, W]."""
    if dataset.get("VOILUTSequence"):
        lut, first = _lut(dataset, dataset.VOILUTSequence[0])
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(lut) - 1)
        return _scale(lut[index], lut.min(), lut.max())
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # Values far beyond the window give the two ends of pydicom's output range, which depends on bit depth, modality
        # LUT and slope; with a negative slope the low end is the larger number.
        with np.errstate(over="ignore"):
            low, high = apply_windowing(np.array([-1e30, 1e30]), dataset)
            return _scale(apply_windowing(values, dataset), low, high)
    return _scale(values, values[inside].min(), values[inside].max())


def _lut(dataset: pydicom.Dataset, item: pydicom.Dataset) -> tuple[npt.NDArray[np.float64], int]:
    """Entries of a VOI LUT and the input value of the first entry.

    Not pydicom's `apply_voi`: it computes indices in the type of the output, so they wrap around where 8-bit entries
    map more than 256 values, which is common, and above 65,535.
    """
    entries, first = int(item.LUTDescriptor[0]) or 2**16, int(item.LUTDescriptor[1])
    data = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        data = np.frombuffer(data, dtype="u1" if len(data) <= entries + 1 else f"{order}u2")
    return np.asarray(data, dtype=np.float64)[:entries], first


def _scale(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float64]:
    """Map `low` to 0 and `high` to 1, even where `low` is the larger number; a flat picture is black."""
    low, high = float(low), float(high)
    if low == high:
        return np.zeros(values.shape, dtype=np.float64)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
