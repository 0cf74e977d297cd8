"""Questions that show several pictures: their pictures and the parts of a map side by side, with a name for each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def side_by_side(sheet: npt.NDArray[Any], pictures: int) -> npt.NDArray[Any]:
    """A map or a picture [pictures * H, W, …], one below the other, with the parts side by side, [H, pictures * W, …].

    Args:
        sheet: of pictures of one size.
        pictures: how many.
    """
    return np.concatenate(np.split(sheet, pictures), axis=1)


def picture_names(images: Sequence[Mapping[str, str | None]]) -> list[str]:
    """A name for each picture of a question, from the column `images`: its role; its id where roles do not differ."""
    roles = [image["role"] or "" for image in images]
    if all(roles) and len(set(roles)) == len(roles):
        return roles
    return [str(image["image_id"]) for image in images]
