"""DICOM radiographs: stored values to 8-bit gray, in the order that the standard asks for.

Stored pixels → modality LUT → VOI LUT or window → inversion of MONOCHROME1 → 8 bit (DICOM PS3.3 C.11, PS3.4 N.2).
Inverting before the window, a frequent slip, shows another part of the range.
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

# What pydicom raises on damaged files, depending on where it trips over the damage.
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
    """A DICOM file that is not one usable radiograph."""


def is_dicom(path: Path) -> bool:
    """Whether the file says it is DICOM, by its name or by the four letters that follow the preamble."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Read one radiograph as it is meant to be looked at: air dark, bone bright.

    The first VOI LUT, else the first window, sets the shown range; without either it is the picture's own. Padding
    (PixelPaddingValue) is no part of the picture: black, and left out of the range.

    Args:
        path: DICOM file.
        max_pixels: Largest rows × columns that will be decoded.

    Returns:
        uint8 ``[H, W]``, or ``[H, W, 3]`` for a color picture.

    Raises:
        DicomError: Not DICOM, no pixels, several frames, too large, or a transfer syntax that no decoder reads.
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
        DicomError: Not DICOM, damaged, or without a size.
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
    """Refuse what is not one gray or color picture of a sane size, before anything is decoded."""
    if "PixelData" not in dataset:
        raise DicomError("DICOM file without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DicomError(f"DICOM file with {frames} frames, expected one picture")
    pixels = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    if pixels > max_pixels:
        raise DicomError(f"{pixels} pixels are more than the {max_pixels} allowed")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # A compressed stream has a size of its own, and that is what its decoder allocates.
        stated = codestream_size(next(generate_frames(dataset.PixelData, number_of_frames=1), b""))
        if stated is not None and stated != (dataset.get("Rows"), dataset.get("Columns")):
            size = f"{dataset.get('Rows')}×{dataset.get('Columns')}"
            raise DicomError(f"compressed picture is {stated[0]}×{stated[1]} px, the DICOM header says {size}")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in GRAY and int(dataset.get("SamplesPerPixel") or 1) != 3:
        raise DicomError(f"photometric interpretation {photometric} is not {' or '.join(GRAY)}")


def _render(dataset: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    """Stored values to 8-bit gray (or color, which pydicom has already turned into RGB)."""
    stored = dataset.pixel_array
    if stored.ndim == 3 and stored.dtype == np.uint8:
        return np.ascontiguousarray(stored)
    if stored.ndim != 2:
        raise DicomError(f"pixels of shape {stored.shape} and type {stored.dtype} are no radiograph")
    padding = _padding(stored, dataset)
    shown = _display_range(apply_modality_lut(stored, dataset), dataset, ~padding)
    gray = np.rint(shown * 255.0).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    gray[padding] = 0
    return gray


def _padding(stored: npt.NDArray[Any], dataset: pydicom.Dataset) -> npt.NDArray[np.bool_]:
    """Stored values that fill the frame outside the exposed field (PS3.3 C.7.5.1.1.2)."""
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
    """Apply VOI LUT or window and scale what they show to 0 … 1 (float64 ``[H, W]``)."""
    if dataset.get("VOILUTSequence"):
        lut, first = _lut(dataset, dataset.VOILUTSequence[0])
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(lut) - 1)
        return _scale(lut[index], lut.min(), lut.max())
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # The window's ends, found by values far beyond them: pydicom's output range depends on bit depth, modality LUT
        # and slope, and with a negative slope its low end is the larger number.
        with np.errstate(over="ignore"):
            low, high = apply_windowing(np.array([-1e30, 1e30]), dataset)
            return _scale(apply_windowing(values, dataset), low, high)
    return _scale(values, values[inside].min(), values[inside].max())


def _lut(dataset: pydicom.Dataset, item: pydicom.Dataset) -> tuple[npt.NDArray[np.float64], int]:
    """Entries of a VOI LUT and the value that the first one stands for.

    pydicom's `apply_voi` indexes in the output's type: 8-bit entries for more than 256 values, which are common, and
    values above 65,535 wrap around.
    """
    entries, first = int(item.LUTDescriptor[0]) or 2**16, int(item.LUTDescriptor[1])
    data = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        data = np.frombuffer(data, dtype="u1" if len(data) <= entries + 1 else f"{order}u2")
    return np.asarray(data, dtype=np.float64)[:entries], first


def _scale(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float64]:
    """Map [low, high] to [0, 1], whichever end is the larger; a flat picture is black."""
    low, high = float(low), float(high)
    if low == high:
        return np.zeros(values.shape, dtype=np.float64)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
