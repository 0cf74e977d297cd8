"""Reads JPEG and PNG with Pillow: pictures and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from cxr_faith.data.png import check_whole

_PICTURES, _MASKS = ("JPEG", "PNG"), ("PNG",)

# How a picture must be turned to be upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_raster(file: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Read a JPEG or PNG picture: uint8 [H, W] for gray, [H, W, 3] for color.

    16-bit gray is scaled by its own range, a camera's rotation tag is applied, alpha is ignored.

    Args:
        file: the file.
        max_pixels: largest height × width that is decoded.

    Raises:
        ValueError: not such a picture, damaged, too large, or 16-bit in color or with alpha, of which Pillow keeps the
            high bytes only.
    """
    with _decoded(file, max_pixels, _PICTURES) as picture:
        turn = _TURNS.get(_orientation(picture))
        upright = picture if turn is None else picture.transpose(turn)
        if upright.mode.startswith("I"):
            return scale_own_range(np.asarray(upright))
        return np.asarray(upright if upright.mode in ("L", "RGB") else upright.convert("RGB"))


def read_raster_size(file: Path, mask: bool = False) -> tuple[int, int]:
    """Height and width of a picture, or of a mask, as it would be decoded.

    Raises:
        ValueError: not such a file.
    """
    with _opened(file, _MASKS if mask else _PICTURES) as picture:
        turned = not mask and _orientation(picture) >= 5
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def read_mask(file: Path, max_pixels: int) -> npt.NDArray[np.bool_]:
    """Read a PNG mask, bool [H, W]: every pixel that is not 0 (palette index, gray level or any color) is inside.

    Raises:
        ValueError: as for `read_raster`; JPEG is refused, because its artifacts would count as inside.
    """
    with _decoded(file, max_pixels, _MASKS) as picture:
        values = np.asarray(picture)
        color_channels = len(picture.getbands()) - (picture.mode in ("LA", "PA", "RGBA"))
    return np.asarray(np.atleast_3d(values)[..., :color_channels].any(axis=2))


def scale_own_range(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale the darkest value to 0 and the brightest to 255; a flat picture is black."""
    low, high = float(values.min()), float(values.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    shown = np.empty(values.shape, dtype=np.uint8)
    rows = 2**18 // values.shape[1] + 1  # a part at a time: eight bytes per pixel of all would be half a gigabyte
    for start in range(0, len(values), rows):
        shown[start : start + rows] = np.rint((values[start : start + rows] - low) * scale)
    return shown


def _opened(file: Path, formats: tuple[str, ...]) -> Image.Image:
    """Open with Pillow; pixels are not decoded yet."""
    expected = " or ".join(formats)
    try:
        picture = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"not an image ({expected} expected)") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"cannot be opened as {expected}: {error}") from error
    return picture


def _decoded(file: Path, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """Open and decode with Pillow."""
    picture = _opened(file, formats)
    if picture.format == "PNG":
        check_whole(file)
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        raise ValueError(f"{pixels} pixels are more than the {max_pixels} allowed")
    if any(";16B" in str(tile) for tile in getattr(picture, "tile", ())) and not picture.mode.startswith("I"):
        raise ValueError("16-bit PNG in color or with alpha: convert it to 16-bit gray or to 8 bit")
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{picture.format} file is truncated or damaged: {error}") from error
    return picture


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where the tag or all of EXIF is damaged, as viewers take it."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return 1
