"""All pictures that a question shows, as one sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cxr_faith.data.geometry import Geometry
from cxr_faith.data.sample import Box, Sample

if TYPE_CHECKING:
    from cxr_faith.data.items import SampleItem

Read = Callable[[str], tuple[Tensor, Geometry, str | None]]
"""Path → a picture [3, H, W] at model size, how it came there, and the hash of what was decoded."""


def with_others(item: SampleItem, read: Read) -> SampleItem:
    """The item with a sheet of the pictures that its question shows, one below the other.

    Args:
        item: with the picture that mask files belong to.
        read: reads one of the others; it may raise an `ImageError`.
    """
    sample, masks = item.sample, dict[int, Tensor]()
    images, hashes, place = list[Tensor](), list[str | None](), 0
    for number, one in enumerate(sample.images):
        if one.image_id == sample.image_id:
            assert item.image is not None
            place, picture, digest, mask = number, item.image, item.picture_hash, item.finding_mask
        else:
            picture, geometry, digest = read(one.path)
            mask = boxes_mask(sample, one.image_id, geometry)
        images.append(picture)
        hashes.append(digest)
        if mask is not None:
            masks[number] = mask
    return replace(
        item,
        image=torch.cat(images, dim=1),
        pair=None if item.pair is None else torch.cat([*images[:place], item.pair, *images[place + 1 :]], dim=1),
        finding_mask=on_sheet(masks, len(images)) if masks else None,
        picture_hash=None if None in hashes else "+".join(map(str, hashes)),
        pictures=len(images),
        place=place,
    )


def boxes_mask(sample: Sample, image_id: str, geometry: Geometry) -> Tensor | None:
    """Union of the boxes of the sample's finding on one picture, bool [H, W] in model pixels; None without a box."""
    own = [box for box in sample.boxes if (box.image_id or sample.image_id) == image_id]
    corners = corners_of(boxes_of_finding(sample, own))
    return geometry.boxes_to_mask(corners) if corners else None


def boxes_of_finding(sample: Sample, boxes: Sequence[Box]) -> list[Box]:
    """Those of some boxes that belong to the sample's finding."""
    finding = (sample.finding or "").casefold()
    return [box for box in boxes if finding and box.label.casefold() == finding]


def corners_of(boxes: Sequence[Box]) -> list[tuple[float, float, float, float]]:
    """x1, y1, x2, y2 of each box."""
    return [(box.x1, box.y1, box.x2, box.y2) for box in boxes]


def on_sheet(parts: Mapping[int, Tensor], pictures: int) -> Tensor:
    """Values of single pictures [height, width] at their places on a sheet [pictures * height, width], 0 elsewhere.

    Args:
        parts: place → values; one or more.
        pictures: number of pictures on the sheet.
    """
    if pictures == 1:
        return parts[0]
    nothing = torch.zeros_like(next(iter(parts.values())))
    return torch.cat([parts.get(place, nothing) for place in range(pictures)])
