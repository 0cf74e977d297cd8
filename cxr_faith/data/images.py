"""Reads JPEG, PNG and DICOM files as 8-bit RGB, and masks as booleans; every error is one line that names the file.

`cxr_faith.data.geometry` brings them to model size.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cxr_faith.data.dicom import is_dicom, read_dicom, read_dicom_size

MAX_PIXELS = 64_000_000
"""Most pixels (height × width) that are decoded, three times the largest detector's: stops decompression bombs."""

# What Pillow raises on damaged files and on files that are not pictures (UnidentifiedImageError is an OSError).
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class ImageError(ValueError):
    """An image or mask file that cannot be used; the message is one line that names the file and the fault."""


def resolve(path: str | Path, root: str | Path | None = None) -> Path:
    """Resolve a manifest's path, symbolic links included.

    Args:
        path: path of the file, relative to `root`.
        root: folder that the file must be in, even after links are resolved; None: anywhere.

    Returns:
        the absolute path of an existing file.

    Raises:
        ImageError: the file is missing, is not a regular file, or is outside `root`.
    """
    try:
        base = None if root is None else Path(root).resolve()
        file = (base or Path()).joinpath(path).resolve()
        is_file, exists = file.is_file(), file.exists()
    except (OSError, RuntimeError, ValueError) as error:  # name too long, loop of links, null byte
        raise ImageError(f"{str(path)!r}: not a usable path: {error}") from error
    if base is not None and not file.is_relative_to(base):
        raise ImageError(f"{path}: path leads outside the data root {base}")
    if not is_file:
        raise ImageError(f"{file}: {'is not a file' if exists else 'file not found'}")
    return file


def load_image(path: str | Path, root: str | Path | None = None, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a picture as 8-bit RGB.

    Gray becomes three equal channels, a 16-bit PNG is scaled by its own range, and DICOM is displayed as in
    `read_dicom`. The content, not the suffix, tells JPEG from PNG. A camera's rotation tag (EXIF) is applied.

    Args:
        path: JPEG, PNG or DICOM file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.
        max_pixels: largest height × width that is decoded.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ImageError: missing or truncated file, not an image, DICOM without pixels, too many pixels, outside `root`.
    """
    file = resolve(path, root)
    try:
        pixels = read_dicom(file, max_pixels) if is_dicom(file) else _read_raster(file, max_pixels)
    except (OSError, ValueError) as error:
        raise _image_error(file, error) from error
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def read_size(path: str | Path, root: str | Path | None = None, mask: bool = False) -> tuple[int, int]:
    """Read the height and width that `load_image` (or `load_mask`) would give from the file's header alone.

    Args:
        path: JPEG, PNG or DICOM file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.
        mask: the file is a mask, which must be PNG.

    Raises:
        ImageError: missing file, not an image (PNG for a mask) by its header, or outside `root`.
    """
    file = resolve(path, root)
    formats = ("PNG",) if mask else ("JPEG", "PNG")
    try:
        if not mask and is_dicom(file):
            return read_dicom_size(file)
        with Image.open(file, formats=formats) as picture:
            # Orientations 5 to 8 swap height and width.
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5 and not picture.mode.startswith("I")
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except UnidentifiedImageError as error:
        raise ImageError(f"{file}: not an image ({' or '.join(formats)} expected)") from error
    except (*_FAULTS, TypeError) as error:
        raise _image_error(file, error) from error


def load_mask(path: str | Path, root: str | Path | None = None) -> npt.NDArray[np.bool_]:
    """Read a mask from a PNG file.

    Every pixel that is not 0 (palette index, gray level or any color channel) is inside; alpha is ignored.

    Args:
        path: PNG file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.

    Returns:
        bool [H, W].

    Raises:
        ImageError: missing or damaged file, not PNG (JPEG artifacts would count as inside), or outside `root`.
    """
    file = resolve(path, root)
    try:
        with _open(file, MAX_PIXELS, formats=("PNG",)) as picture:
            values = np.asarray(picture)
            color_channels = len(picture.getbands()) - (picture.mode in ("LA", "RGBA"))
    except ValueError as error:
        raise _image_error(file, error) from error
    inside: npt.NDArray[np.bool_] = np.atleast_3d(values)[..., :color_channels].astype(bool).max(axis=2)
    return inside


def _image_error(file: Path, error: Exception) -> ImageError:
    """The error as one line, even where a damaged header put line breaks into the message."""
    return ImageError(f"{file}: {' '.join(str(error).split())}")


def _open(file: Path, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """Open and decode with Pillow; every fault is a ValueError."""
    expected = " or ".join(formats)
    try:
        picture = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"not an image ({expected} expected)") from error
    except _FAULTS as error:
        raise ValueError(f"cannot be opened as {expected}: {error}") from error
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        raise ValueError(f"{pixels} pixels are more than the {max_pixels} allowed")
    try:
        picture.load()
    except _FAULTS as error:
        raise ValueError(f"{picture.format} file is truncated or damaged: {error}") from error
    return picture


def _read_raster(file: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """JPEG or PNG as uint8 [H, W, 3], or [H, W] for 16-bit gray."""
    with _open(file, max_pixels, formats=("JPEG", "PNG")) as picture:
        if picture.mode.startswith("I"):
            return _scale_own_range(np.asarray(picture))
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


def _scale_own_range(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale the darkest value to 0 and the brightest to 255; a flat picture is black."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)
