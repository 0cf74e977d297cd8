"""Opens DICOM radiographs and decodes their stored values; `cxr_faith.data.display` turns those into 8-bit gray."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_faith.data.codestream import codestream_size, fault, is_jp2
from cxr_faith.data.display import ConstantError, display
from cxr_faith.data.stored_values import OVERLAY_BITS, stored_values

# A file without preamble begins with an element of the file meta information or of its identification.
_FIRST_GROUPS = (b"\x02\0", b"\x08\0")

_LONGEST_TEXT = 64
"""Characters; DICOM allows a patient's id no more."""

GRAY = ("MONOCHROME1", "MONOCHROME2")

# All that decoding and display need: private and other elements are skipped, however long they say they are.
_PIXELS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
]


class DicomError(ValueError):
    """A DICOM file that does not hold one usable radiograph."""


class _Bounded(io.BufferedReader):
    """A file that reads no more than it has: an element that says it is gigabytes long must not reserve them."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, max(left, 0)))


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM: by the letters DICM, or without them by its first element or its suffix."""
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM" or head.startswith(_FIRST_GROUPS):
        return True
    return path.suffix.lower() in (".dcm", ".dicom") and not head.startswith((b"\x89PNG", b"\xff\xd8\xff"))


def read_dicom(path: Path, max_pixels: int, window: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """Read one radiograph as it is meant to be viewed: air dark, bone bright.

    Args:
        path: DICOM file.
        max_pixels: largest rows × columns that are decoded.
        window: center and width, after the modality LUT or rescale, in place of the header's windows and VOI LUTs.

    Returns:
        uint8 [H, W], or [H, W, 3] for a color picture.

    Raises:
        ConstantError: everything outside the padding is of one gray.
        DicomError: not DICOM, no pixels, several frames, too large, or a transfer syntax that no decoder reads.
    """
    dataset = _opened(path, _PIXELS)
    try:
        _check(dataset, max_pixels)
        # Some files have room for more frames than they state; one picture is what they are said to hold.
        dataset.NumberOfFrames = 1
        for keyword, default in (
            ("SamplesPerPixel", 1),
            ("BitsStored", dataset.get("BitsAllocated")),
            ("PixelRepresentation", 0),
        ):
            if dataset.get(keyword) is None:
                setattr(dataset, keyword, default)
        dataset.pixel_array_options(allow_excess_frames=False)
        if window is not None:
            if not (np.isfinite(window).all() and window[1] >= 1):
                raise DicomError(f"a window is a center and a width of 1 or more, got {window[0]:g},{window[1]:g}")
            dataset.WindowCenter, dataset.WindowWidth = window
            for keyword in ("VOILUTSequence", "VOILUTFunction"):
                dataset.pop(keyword, None)
        stored = stored_values(dataset)
        if stored.ndim == 3 and stored.dtype == np.uint8 and stored.shape[2] == 3:
            if window is not None:
                raise DicomError("a window is for gray pictures, and this one is in color")
            return np.ascontiguousarray(stored)
        if stored.ndim != 2 or stored.dtype.kind not in "iu":
            raise DicomError(f"pixels of shape {stored.shape} and type {stored.dtype} are not a radiograph")
        return display(stored, dataset)
    except (DicomError, ConstantError, MemoryError):
        raise
    except Exception as error:
        syntax = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        hint = "; pip install 'cxr-faith[dicom]'" if "missing" in str(error) else ""
        raise DicomError(f"DICOM pixels cannot be read (transfer syntax {syntax}): {error}{hint}") from error


def read_dicom_size(path: Path) -> tuple[int, int]:
    """Rows and columns, from the header alone.

    Raises:
        DicomError: not DICOM, damaged, or without a size.
    """
    dataset = _opened(path, ["Rows", "Columns"], stop_before_pixels=True)
    rows, columns = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        raise DicomError("DICOM file without pixels")
    return rows, columns


def read_dicom_texts(path: Path, keywords: list[str]) -> dict[str, str]:
    """Texts of some elements of the header, of up to `_LONGEST_TEXT` characters; those that are empty are left out.

    Raises:
        DicomError: not DICOM, or damaged.
    """
    dataset = _opened(path, keywords, stop_before_pixels=True)
    texts = {}
    for keyword in keywords:
        try:
            texts[keyword] = str(dataset.get(keyword) or "").strip()
        except Exception as error:  # pydicom decodes a value when it is asked for
            raise DicomError(f"damaged DICOM file ({keyword}: {error})") from error
    return {keyword: text for keyword, text in texts.items() if 0 < len(text) <= _LONGEST_TEXT}


def _opened(path: Path, keywords: list[str], **options: Any) -> pydicom.Dataset:
    """Read these elements of a file."""
    tags = [tag_for_keyword(keyword) or 0 for keyword in keywords] + list(OVERLAY_BITS)
    try:
        with _Bounded(io.FileIO(str(path))) as file:
            bare = file.peek(4).startswith(_FIRST_GROUPS)
            dataset = pydicom.dcmread(file, specific_tags=tags, force=bare, **options)
            if bare and "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0] is not False
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            return dataset
    except MemoryError:
        raise
    except InvalidDicomError as error:
        raise DicomError("not a DICOM file") from error
    except Exception as error:  # pydicom raises many kinds, depending on where the damage is
        raise DicomError(f"damaged DICOM file ({error})") from error


def _whole(dataset: pydicom.Dataset, keyword: str, default: int) -> int:
    """A whole number of the header; the default where it is missing or empty.

    Raises:
        DicomError: it is not one whole number.
    """
    try:
        return int(dataset.get(keyword) or default)
    except Exception as error:
        raise DicomError(f"damaged DICOM file ({keyword}: {error})") from error


def _check(dataset: pydicom.Dataset, max_pixels: int) -> None:
    """Refuse, before decoding, what is not one gray or color picture of a plausible size."""
    if "PixelData" not in dataset:
        raise DicomError("DICOM file without pixels")
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames != 1:
        raise DicomError(f"DICOM file with {frames} frames, expected one picture")
    rows, columns = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        raise DicomError("DICOM file without pixels")
    if rows * columns > max_pixels:
        raise DicomError(f"{rows * columns} pixels are more than the {max_pixels} allowed")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # The decoder allocates the size in the compressed stream's own header, which may differ from the DICOM header.
        stream = next(generate_frames(dataset.PixelData, number_of_frames=1), b"")
        stated = codestream_size(stream)
        if stated is None and is_jp2(stream):
            raise DicomError("compressed picture is damaged: its JPEG 2000 boxes lead to no picture")
        if stated is not None and stated != (rows, columns):
            size = f"{rows}×{columns}"
            raise DicomError(f"compressed picture is {stated[0]}×{stated[1]} px, the DICOM header says {size}")
        missing = fault(stream)
        if missing:
            raise DicomError(f"compressed picture is truncated or damaged: {missing}")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in GRAY and _whole(dataset, "SamplesPerPixel", 1) != 3:
        raise DicomError(f"photometric interpretation {photometric} is not {' or '.join(GRAY)}")
