"""Several readers of one picture, as in both editions of VinDr-CXR: their votes on findings and their boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cxr_faith.data.boxes import fuse, limited
from cxr_faith.data.sample import Box
from cxr_faith.data.sources.presence import NO, YES
from cxr_faith.data.tables import number, text
from cxr_faith.data.tally import Tally

OTHER = "other disease"
# Spellings that differ between splits and editions.
_SAME = {"other diseases": OTHER, "other disease(s)": OTHER}
NO_FINDING = "no finding"
NOT_ASKED = (NO_FINDING, OTHER, "other lesion")
"""Labels without a question."""
BOX_COLUMNS = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")


class Votes(NamedTuple):
    """Number of readers who saw a finding on an image, and of all its readers."""

    seen: int
    readers: int

    @property
    def answer(self) -> str | None:
        """Yes if a majority (2 of 3) saw it, no if nobody did, else None: the readers disagree."""
        if 2 * self.seen > self.readers:
            return YES
        return NO if self.seen == 0 else None


VotesByImage = Mapping[str, Mapping[str, Votes]]
"""Votes by finding and image."""


@dataclass(frozen=True)
class Marks:
    """Boxes on one image.

    Attributes:
        boxes: the readers' boxes of the findings that are present, merged.
        readers: (reader, own boxes) of each reader; empty where the data set does not name them or nobody drew a box.
    """

    boxes: tuple[Box, ...] = ()
    readers: tuple[tuple[str, tuple[Box, ...]], ...] = ()


def finding_name(label: str) -> str:
    """A label in the one spelling that is used here."""
    lower = " ".join(label.lower().split())
    return _SAME.get(lower, lower)


def answers(votes: VotesByImage, source: str, tally: Tally) -> Iterator[tuple[str, dict[str, str]]]:
    """Each finding with the answer on each image; images on which the readers disagree are counted and left out."""
    for finding, images in votes.items():
        if finding in NOT_ASKED:
            continue
        for name, vote in images.items():
            if vote.answer is None:
                tally.drop("question", f"{source}/{name}/{finding}", "readers disagree")
        yield finding, {name: vote.answer for name, vote in images.items() if vote.answer is not None}


def read_marks(table: pd.DataFrame, file: str, votes: VotesByImage, tally: Tally) -> dict[str, Marks]:
    """Boxes by image; a row without corners means that there is nothing to box.

    Args:
        table: `BOX_COLUMNS`, and `rad_id` where the readers are named.
        file: name of the table's file, for the list of drops.
        votes: the votes on the images; a box of a finding that is not present there is in its reader's boxes alone.
        tally: takes the boxes that are dropped.
    """
    drawn: dict[str, list[Box]] = {}
    own: dict[str, dict[str, list[Box]]] = {}
    images = set().union(*votes.values())
    for position, row in enumerate(table.to_dict("records")):
        name, label = text(row["image_id"]), finding_name(text(row["class_name"]) or "")
        if name is None:
            tally.drop("box", "", "row without image id", f"{file} row {position + 1}")
            continue
        reader = text(row.get("rad_id"))
        boxes = own.setdefault(name, {}).setdefault(reader, []) if reader else []
        x1, y1, x2, y2 = (number(row[corner]) for corner in BOX_COLUMNS[2:])
        if not any(map(math.isfinite, (x1, y1, x2, y2))):
            if label != NO_FINDING and _is_present(votes, label, name):
                tally.note("findings that are present, without a box")
        elif not all(map(math.isfinite, (x1, y1, x2, y2))):
            tally.drop("box", name, "corner is not a number", f"{label} {x1} {y1} {x2} {y2}")
        elif x1 >= x2 or y1 >= y2:
            tally.drop("box", name, "empty or of negative size", f"{label} {x1} {y1} {x2} {y2}")
        elif name not in images:
            tally.drop("box", name, "image has no labels")
        else:
            boxes.append(Box(label, x1, y1, x2, y2))
            if _is_present(votes, label, name):
                drawn.setdefault(name, []).append(Box(label, x1, y1, x2, y2))
            else:
                tally.drop("box", name, "finding that most readers do not see", label)
    return {name: _marks(name, drawn.get(name, []), own.get(name, {}), tally) for name in drawn.keys() | own.keys()}


def _marks(name: str, drawn: list[Box], own: Mapping[str, list[Box]], tally: Tally) -> Marks:
    boxes = limited(drawn, name, tally)
    fused = fuse(boxes)
    for _ in range(len(boxes) - len(fused)):
        tally.note("readers' boxes merged into another")
    if not any(own.values()):
        return Marks(fused)
    return Marks(fused, tuple((reader, tuple(limited(boxes, name, tally))) for reader, boxes in sorted(own.items())))


def _is_present(votes: VotesByImage, label: str, name: str) -> bool:
    vote = votes.get(label, {}).get(name)
    return vote is not None and vote.answer == YES
