"""Reads JPEG, PNG and DICOM files as 8-bit RGB, and masks as booleans; every error is one line that names the file.

Files are decoded in a process of their own: see `cxr_faith.data.decoder`. `cxr_faith.data.geometry` brings pictures and
masks to model size.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_faith.data.decoder import DECODE_SECONDS, DecodeError, Task, decode

MAX_PIXELS = 64_000_000
"""Most pixels (height × width) that are decoded, three times the largest detector's: stops decompression bombs."""


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


def load_image(
    path: str | Path,
    root: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    seconds: float = DECODE_SECONDS,
    window: tuple[float, float] | None = None,
) -> npt.NDArray[np.uint8]:
    """Read a picture as 8-bit RGB.

    Gray becomes three equal channels, a 16-bit PNG is scaled by its own range, and DICOM is shown as `display` says.
    The content, not the suffix, tells JPEG from PNG. A camera's rotation tag (EXIF) is applied.

    Args:
        path: JPEG, PNG or DICOM file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.
        max_pixels: largest height × width that is decoded.
        seconds: CPU time that decoding may take.
        window: center and width that show a DICOM picture, in place of those of its header.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ImageError: missing or truncated file, not an image, DICOM without pixels, too many pixels, constant picture,
            16-bit PNG in color or with alpha, a window for a picture that is not gray DICOM, more time or memory than
            allowed, outside `root`.
    """
    file = resolve(path, root)
    try:
        return decode_file(file, window, max_pixels, seconds)
    except DecodeError as error:
        raise ImageError(f"{file}: {error}") from error


def decode_file(
    file: Path,
    window: tuple[float, float] | None = None,
    max_pixels: int = MAX_PIXELS,
    seconds: float = DECODE_SECONDS,
) -> npt.NDArray[np.uint8]:
    """`load_image` for an existing file, whose faults do not name it.

    Raises:
        DecodeError: the file cannot be decoded within its limits.
    """
    pixels = decode("picture", file, max_pixels, seconds, window)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def picture_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """Hash of a decoded picture's size and first channel, which names it whatever its file is called.

    Args:
        pixels: uint8 [H, W, 3].
    """
    digest = hashlib.blake2b(str(pixels.shape[:2]).encode(), digest_size=16)
    digest.update(pixels[..., 0].tobytes())
    return digest.hexdigest()


def read_size(path: str | Path, root: str | Path | None = None, mask: bool = False) -> tuple[int, int]:
    """Read the height and width that `load_image` (or `load_mask`) would give from the file's header alone.

    Args:
        path: JPEG, PNG or DICOM file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.
        mask: the file is a mask, which must be PNG.

    Raises:
        ImageError: missing file, not an image (PNG for a mask) by its header, or outside `root`.
    """
    height, width = _decoded("mask size" if mask else "picture size", path, root)
    return int(height), int(width)


def read_header(path: str | Path, root: str | Path | None = None) -> dict[str, str]:
    """What the header of a DICOM picture says about patient, study and place in a series; empty for other pictures.

    Returns:
        keyword → text.

    Raises:
        ImageError: missing or damaged file, or outside `root`.
    """
    texts: dict[str, str] = json.loads(_decoded("header", path, root).tobytes())
    return texts


def load_mask(
    path: str | Path, root: str | Path | None = None, seconds: float = DECODE_SECONDS
) -> npt.NDArray[np.bool_]:
    """Read a mask from a PNG file.

    Every pixel that is not 0 (palette index, gray level or any color channel) is inside; alpha is ignored.

    Args:
        path: PNG file, relative to `root` if that is given.
        root: folder that the file must be in, symbolic links resolved.
        seconds: CPU time that decoding may take.

    Returns:
        bool [H, W].

    Raises:
        ImageError: missing or damaged file, not PNG (JPEG artifacts would count as inside), or outside `root`.
    """
    return _decoded("mask", path, root, seconds=seconds)


def _decoded(
    task: Task,
    path: str | Path,
    root: str | Path | None,
    max_pixels: int = MAX_PIXELS,
    seconds: float = DECODE_SECONDS,
) -> npt.NDArray[Any]:
    """Decode a file; its name is put before the fault."""
    file = resolve(path, root)
    try:
        return decode(task, file, max_pixels, seconds)
    except DecodeError as error:
        raise ImageError(f"{file}: {error}") from error
