"""Pictures as they are given and as the model gets them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cxr_faith.data.geometry import Geometry, fit, is_constant
from cxr_faith.explainer.pictures import Picture, read_picture
from cxr_faith.vlm.base import VLM


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


def by_picture(pairs: list[tuple[Picture, str]]) -> list[list[int]]:
    """Places of the pairs of each picture; paths are compared as text, all else by identity."""
    places: dict[str | int, list[int]] = {}
    for place, (picture, _) in enumerate(pairs):
        places.setdefault(str(picture) if isinstance(picture, str | Path) else id(picture), []).append(place)
    return list(places.values())
