"""The pictures of a question as they are given and as the model gets them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr_faith.data.geometry import Geometry, fit, is_constant
from cxr_faith.data.orientation import Sides
from cxr_faith.data.sheets import together
from cxr_faith.explainer.pictures import Picture, Shown, read_oriented
from cxr_faith.vlm.base import VLM


@dataclass(frozen=True, eq=False)
class View:
    """What one question shows, as it was given and as the model gets it.

    Attributes:
        image_id: seeds everything random; the ids of several pictures, joined by `+`.
        names: what figures and files call each picture.
        pictures: uint8 [H, W, 3] each, as given.
        geometries: how each was fitted to the model's input.
        pixels: pixel values [3, pictures * H, W] in model input space, one picture below the other.
        sides: of the patient, at the left and right edges of each picture; empty texts where they are not known.
        pair: the picture without the finding, as the model gets it [3, H, W]; None: none was given.
    """

    image_id: str
    names: tuple[str, ...]
    pictures: tuple[NDArray[np.uint8], ...]
    geometries: tuple[Geometry, ...]
    pixels: Tensor
    sides: tuple[Sides, ...]
    pair: Tensor | None = None

    @property
    def picture_ids(self) -> list[str]:
        """One id for each picture."""
        return [f"{self.image_id}/{name}" for name in self.names] if len(self.names) > 1 else [self.image_id]

    @classmethod
    def open(cls, vlm: VLM, image: Shown, image_id: str | None = None, pair: Picture | None = None) -> "View":
        """Read and fit the pictures; the id of one is by default its file's name, else its own, or `image`.

        Args:
            vlm: the model, shown one picture.
            image: what the question shows.
            image_id: in place of the default.
            pair: the same picture without the finding.

        Raises:
            ValueError: there is no picture, one cannot be read or is constant, or the pair is of another size.
        """
        named = _named(image)
        if not named:
            raise ValueError("a question shows one picture or more, got none")
        read, fitted, geometries = [], list[Tensor](), []
        for name, given in named.items():
            picture = read_oriented(given)
            pixels, geometry = fit(picture.pixels, vlm.image_size)
            if is_constant(pixels):
                which = "the picture" if len(named) == 1 else f"picture {name}"
                raise ValueError(f"{which} is constant at model size")
            read.append(picture)
            fitted.append(pixels)
            geometries.append(geometry)
        joined = image_id or "+".join(_file_name(given) or name for name, given in named.items())
        sheet = together(vlm.normalize(torch.stack(fitted)), len(fitted))[0]
        pictures, sides = tuple(one.pixels for one in read), tuple(one.sides for one in read)
        other = None if pair is None else _pair(vlm, pair, geometries)
        return cls(joined, tuple(named), pictures, tuple(geometries), sheet, sides, other)


def _pair(vlm: VLM, given: Picture, geometries: list[Geometry]) -> Tensor:
    """The picture without the finding, [3, H, W] in model input space.

    Raises:
        ValueError: the question shows several pictures, or the pair cannot be read or is of another size.
    """
    if len(geometries) > 1:
        raise ValueError("a pair is of one picture, and the question shows several")
    pixels, geometry = fit(read_oriented(given).pixels, vlm.image_size)
    if geometry != geometries[0]:
        pair, own = ("×".join(map(str, one.original)) for one in (geometry, geometries[0]))
        raise ValueError(f"the pair is {pair} px, its picture {own}")
    return vlm.normalize(pixels[None])[0]


def _named(image: Shown) -> dict[str, Picture]:
    """Name → picture: names that were given, else those of the files, else numbers."""
    if isinstance(image, dict):
        return image
    if not isinstance(image, tuple):
        return {_file_name(image) or "image": image}
    files = [_file_name(picture) for picture in image]
    if all(files) and len({*files}) == len(files):
        return dict(zip(files, image, strict=True))
    return {f"picture {number}": picture for number, picture in enumerate(image, 1)}


def _file_name(picture: Picture) -> str:
    """The name of a picture that is given by its path; empty for others."""
    return Path(picture).name if isinstance(picture, str | Path) else ""


def refuse_lists(image: Shown | list[Shown], question: str | list[str]) -> None:
    """Raise a ValueError for a list where the pictures of one question and one question are expected."""
    if isinstance(image, list) or isinstance(question, list):
        raise ValueError("one picture and one question at a time: explain takes lists of them")


def pair_up(image: Shown | list[Shown], question: str | list[str]) -> list[tuple[Shown, str]]:
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


def by_picture(pairs: list[tuple[Shown, str]]) -> list[list[int]]:
    """Places of the pairs of each picture; paths are compared as text, all else by identity."""
    places: dict[str | int, list[int]] = {}
    for place, (picture, _) in enumerate(pairs):
        places.setdefault(str(picture) if isinstance(picture, str | Path) else id(picture), []).append(place)
    return list(places.values())
