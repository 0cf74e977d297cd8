"""How many boxes a finding has, and the boxes of each reader beside those of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from cxr_faith.data.boxes import fuse
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.shown import boxes_of_finding, corners_of, on_sheet

if TYPE_CHECKING:
    from cxr_faith.data.items import SampleItem


@dataclass(frozen=True)
class LeftOut:
    """One reader's boxes of a finding, and those of the other readers.

    Attributes:
        own: union of the reader's boxes, bool [pictures * H, W] in model pixels.
        others: union of the others' boxes.
        n_others: number of the others' boxes, after those that mark the same thing were merged.
    """

    own: Tensor
    others: Tensor
    n_others: int


def n_finding_boxes(sample: Sample) -> int | None:
    """Number of boxes of the sample's finding; None: a mask says where it is."""
    return None if sample.finding_mask_path else len(boxes_of_finding(sample, sample.boxes))


def left_out(item: SampleItem) -> list[LeftOut]:
    """Each reader who drew a box of the finding, with the others who did; empty for fewer than two such readers.

    A reader without a box of the finding is left out: there is no box to compare. Boxes of readers count on the picture
    of `image_id`.
    """
    sample, geometry = item.sample, item.geometry
    if geometry is None:
        return []
    drawn: list[list[Box]] = []
    for _, boxes in sample.readers:
        on_own = [box for box in boxes if box.image_id in (None, sample.image_id)]
        own = [replace(box, label="") for box in boxes_of_finding(sample, on_own)]
        if own and geometry.boxes_to_mask(corners_of(own)).any():  # else all are in the border that was cut off
            drawn.append(own)
    views = []
    for number, own in enumerate(drawn if len(drawn) > 1 else []):
        others = [box for boxes in (*drawn[:number], *drawn[number + 1 :]) for box in boxes]
        masks = [geometry.boxes_to_mask(corners_of(boxes)) for boxes in (own, others)]
        mine, theirs = (on_sheet({item.place: mask}, item.pictures) for mask in masks)
        views.append(LeftOut(mine, theirs, n_others=len(fuse(others))))
    return views
