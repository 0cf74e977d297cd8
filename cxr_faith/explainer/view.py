"""Pictures as they are given and as the model gets them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_faith.data.geometry import Geometry, fit, is_constant
from cxr_faith.data.images import load_image
from cxr_faith.vlm.base import VLM

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""Path of a JPEG, PNG or DICOM file, a PIL image, or uint8 [H, W] or [H, W, 3]."""


@dataclass(frozen=True, eq=False)
class View:
    """A picture as it was given and as the model gets it.

    Attributes:
        image_id: seeds everything random.
        picture: uint8 [H, W, 3], as given.
        geometry: how it was fitted to the model's input.
        pixels: pixel values [3, H, W] in model input space.
    """

    image_id: str
    picture: NDArray[np.uint8]
    geometry: Geometry
    pixels: Tensor

    @classmethod
    def open(cls, vlm: VLM, image: Picture, image_id: str | None = None) -> "View":
        """Read and fit a picture; its id is by default the file's name, or `image`.

        Raises:
            ValueError: the picture cannot be read or is constant.
        """
        picture = read_picture(image)
        fitted, geometry = fit(picture, vlm.image_size)
        if is_constant(fitted):
            raise ValueError("the picture is constant at model size")
        name = image_id or (Path(image).name if isinstance(image, str | Path) else "image")
        return cls(name, picture, geometry, vlm.normalize(fitted[None])[0])


def read_picture(image: Picture) -> NDArray[np.uint8]:
    """Any accepted picture as uint8 [H, W, 3].

    Raises:
        ValueError: not a picture.
    """
    if isinstance(image, str | Path):
        return load_image(image)
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture must be uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(np.broadcast_to(array[..., None], (*array.shape, 3)) if array.ndim == 2 else array)


def refuse_lists(image: Picture | list[Picture], question: str | list[str]) -> None:
    """Raise a ValueError for a list where one picture and one question are expected."""
    if isinstance(image, list) or isinstance(question, list):
        raise ValueError("one picture and one question at a time: explain takes lists of them")


def pair_up(image: Picture | list[Picture], question: str | list[str]) -> list[tuple[Picture, str]]:
    """Pictures and questions one to one; a single one is repeated.

    Raises:
        ValueError: two lists of different length.
    """
    if not isinstance(image, list):
        return [(image, one) for one in (question if isinstance(question, list) else [question])]
    if not isinstance(question, list):
        return [(one, question) for one in image]
    if len(image) != len(question):
        raise ValueError(f"{len(image)} pictures and {len(question)} questions: give lists of equal length, or one")
    return list(zip(image, question, strict=True))
