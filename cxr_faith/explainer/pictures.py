"""Pictures of any kind that a program holds, as 8-bit RGB."""

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from cxr_faith.data.decoder import DecodeError
from cxr_faith.data.images import ImageError, decode_file, load_image, read_header
from cxr_faith.data.orientation import USUAL_SIDES, Sides, orientation_of, sides_of


@dataclass(frozen=True, eq=False)
class Oriented:
    """A picture that was read, with the patient's sides."""

    pixels: NDArray[np.uint8]
    """[H, W, 3]."""
    sides: Sides = USUAL_SIDES
    """What lies at its left and at its right edge; empty texts where that is not known."""


Picture = str | Path | bytes | BinaryIO | Image.Image | NDArray[Any] | torch.Tensor | Dataset | Oriented
"""Path, content or open file of a JPEG, PNG or DICOM file, a PIL image, a pydicom dataset, or an array or a tensor
[H, W], [H, W, 3], [1, H, W] or [3, H, W] of uint8 or uint16; of floats after `read_picture` with their range.
The header of a DICOM picture says where the patient's sides are; others are taken for the usual view."""

Pictures = tuple[Picture, ...] | dict[str, Picture]
"""The pictures of a question that shows several, in the order in which the model gets them; a dict gives them names,
such as `{"prior": …, "current": …}`."""

Shown = Picture | Pictures
"""What one question shows."""

Range = tuple[float, float]
"""The value that is black, and the one that is white."""

_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")  # of PIL: 16 or 32 bits a pixel


def read_picture(image: Picture, *, value_range: Range | None = None, window: Range | None = None) -> NDArray[np.uint8]:
    """Any accepted picture as uint8 [H, W, 3], which every function for pictures takes.

    16-bit arrays are scaled from their smallest to their largest value, as 16-bit PNG files are.

    Args:
        image: the picture.
        value_range: black and white of an array; required for floats. Values beyond are cut off.
        window: center and width for a DICOM picture, in place of those of its header.

    Raises:
        ValueError: not a picture, an array of another shape or type, floats without their range, values that are not
            finite, or a window for another picture than DICOM.
    """
    if isinstance(image, Oriented):
        return image.pixels
    if isinstance(image, str | Path):
        return load_image(image, window=window)
    if isinstance(image, bytes):
        return _decoded(image, window)
    if isinstance(image, Dataset):
        return _decoded(_file_of(image), window)
    if isinstance(image, Image.Image):
        image = np.asarray(image) if image.mode in _DEEP_MODES else np.asarray(image.convert("RGB"))
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    elif not isinstance(image, np.ndarray):
        if not hasattr(image, "read"):
            raise ValueError(f"{type(image).__name__} is no picture")
        return _decoded(image.read(), window)
    if window is not None:
        raise ValueError("a window is for DICOM pictures: for an array, state its value_range")
    return _rgb(_gray_levels(_channels_last(image), value_range))


def read_oriented(image: Picture, *, window: Range | None = None) -> Oriented:
    """Any accepted picture with the patient's sides, by its DICOM header if it has one, else those of the usual view.

    Args:
        image: the picture.
        window: as for `read_picture`.

    Raises:
        ValueError: as `read_picture`.
    """
    if isinstance(image, Oriented):
        return image
    if not isinstance(image, str | Path | bytes | Dataset | Image.Image | np.ndarray | torch.Tensor):
        image = image.read() if hasattr(image, "read") else image  # can be read once
    pixels = read_picture(image, window=window)
    return Oriented(pixels, sides_of(orientation_of(_header(image))))


def _header(image: Picture) -> Mapping[str, str]:
    """What a DICOM picture's header says; empty for other pictures."""
    if isinstance(image, Dataset):
        return {name: str(image.get(name) or "") for name in ("PatientOrientation", "ViewPosition")}
    if isinstance(image, bytes):
        with _as_file(image) as path:
            return read_header(path)
    return read_header(image) if isinstance(image, str | Path) else {}


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _decoded(content: bytes, window: Range | None) -> NDArray[np.uint8]:
    """The picture in the content of a file, decoded as files are: in a process with limits."""
    with _as_file(content) as path:
        try:
            return decode_file(path, window)
        except DecodeError as error:
            raise ImageError(f"the picture's bytes: {error}") from error


def _file_of(dataset: Dataset) -> bytes:
    """A dataset as the content of a DICOM file.

    Raises:
        ImageError: it cannot be written as one.
    """
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    filled = FileMetaDataset(meta)
    for keyword, value in (
        ("TransferSyntaxUID", ExplicitVRLittleEndian),
        ("MediaStorageSOPClassUID", dataset.get("SOPClassUID") or SecondaryCaptureImageStorage),
        ("MediaStorageSOPInstanceUID", dataset.get("SOPInstanceUID") or generate_uid()),
    ):
        if keyword not in filled:
            setattr(filled, keyword, value)
    copy, content = Dataset(), io.BytesIO()  # the caller's dataset stays as it is
    copy.update({element.tag: element for element in dataset})
    copy.file_meta = filled
    for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"):
        setattr(copy, keyword.removeprefix("MediaStorage"), getattr(filled, keyword))
    try:
        dcmwrite(content, copy, enforce_file_format=True)
    except Exception as error:  # pydicom raises many kinds, depending on what is wrong with an element
        raise ImageError(f"the DICOM dataset cannot be read: {error}") from error
    return content.getvalue()


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """An array as [H, W] or [H, W, 3].

    Raises:
        ValueError: another shape.
    """
    shape = array.shape
    if array.ndim == 3 and shape[2] not in (1, 3) and shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or 0 in array.shape:
        raise ValueError(f"a picture is [H, W], [H, W, 3] or [3, H, W], got {array.dtype} {list(shape)}")
    return array


def _gray_levels(array: NDArray[Any], value_range: Range | None) -> NDArray[np.uint8]:
    """The values from 0 to 255.

    Raises:
        ValueError: a type of no picture, floats without a range, or values that are not finite.
    """
    if value_range is None and array.dtype == np.uint8:
        return array
    if value_range is None and array.dtype != np.uint16:
        raise ValueError(
            f"a picture must be uint8 or uint16, got {array.dtype} {list(array.shape)}: state what is black and white "
            "with cxr_faith.read_picture(image, value_range=(0, 1))"
        )
    values = array.astype(np.float64)
    low, high = (values.min(), values.max()) if value_range is None else value_range
    if not np.isfinite(values).all() or not np.isfinite([low, high]).all():
        raise ValueError("the picture has values that are not finite")
    if high <= low:
        raise ValueError(
            f"the picture is constant: every pixel is {low:g}" if value_range is None else "an empty range"
        )
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _rgb(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.broadcast_to(array[..., None], (*array.shape, 3)) if array.ndim == 2 else array)
