"""What every source's samples go through on their way into a manifest: each value is kept, mended or dropped, counted.

A sample whose picture cannot be opened, whose id is taken or whose question is missing is dropped; a box that is no box
is dropped and its sample kept; a box that reaches over the picture's edge is cut there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cxr_faith.data.images import ImageError, read_size, resolve
from cxr_faith.data.sample import Box, Sample, SampleError
from cxr_faith.data.tally import Tally

Join = Callable[[Sample], Sample]
"""Adds boxes or masks to a sample whose height and width are known."""


def accept(samples: Iterable[Sample], root: Path, tally: Tally, joins: Sequence[Join] = ()) -> Iterator[Sample]:
    """Judge samples one by one; what passes can be evaluated.

    Args:
        samples: What a source yields.
        root: Folder that image paths are relative to and must stay in.
        tally: Takes the counts.
        joins: Applied to each sample before its boxes are judged.

    Yields:
        The samples that are taken, with the size of their picture.
    """
    ids: set[str] = set()
    pictures = _Pictures(root)
    for sample in samples:
        tally.seen += 1
        if sample.sample_id in ids:
            tally.drop("question", sample.sample_id, "sample id is there already")
            continue
        ids.add(sample.sample_id)
        if fault := _fault(sample):
            tally.drop("question", sample.sample_id, fault)
            continue
        size = pictures.size(sample)
        if isinstance(size, str):
            reason, _, detail = size.partition("\n")
            tally.drop("image", sample.image_id, reason, detail)
            tally.drop("question", sample.sample_id, f"image {reason}", sample.image_path)
            continue
        sample = replace(sample, height=size[0], width=size[1])
        for join in joins:
            sample = join(sample)
        sample = replace(sample, boxes=tuple(_boxes(sample, tally)))
        tally.take(sample)
        yield sample


class _Pictures:
    """Size of each picture, or why there is none; looked up once per picture."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, tuple[int, int] | str] = {}

    def size(self, sample: Sample) -> tuple[int, int] | str:
        """Height and width; a stated size is believed if the file is there. A fault is `reason` newline `detail`."""
        if sample.image_path not in self.known:
            self.known[sample.image_path] = self._look(sample)
        return self.known[sample.image_path]

    def _look(self, sample: Sample) -> tuple[int, int] | str:
        try:
            if sample.height and sample.width:
                resolve(sample.image_path, self.root)
                return sample.height, sample.width
            return read_size(sample.image_path, self.root)
        except ImageError as error:
            return f"{_kind_of_fault(str(error))}\n{error}"


def _kind_of_fault(message: str) -> str:
    """A few words that are the same for all pictures with this fault."""
    for words in ("file not found", "outside the data root", "not a usable path", "is not a file", "not an image"):
        if words in message:
            return words
    return "cannot be opened"


def _fault(sample: Sample) -> str | None:
    """What is wrong with a sample apart from its boxes and its picture."""
    try:
        replace(sample, boxes=()).validate()
    except SampleError as error:
        return str(error)
    if sample.kind == "yes_no" and sample.answer is not None:
        words = {answer.casefold() for answer in sample.answer}
        if len(words) != 1 or not words <= {"yes", "no"}:
            return "yes/no question whose answer is neither"
    return None


def _boxes(sample: Sample, tally: Tally) -> Iterator[Box]:
    """The boxes that are boxes, within the picture; equal ones once."""
    assert sample.height and sample.width
    for box in dict.fromkeys(sample.boxes):
        corners = (box.x1, box.y1, box.x2, box.y2)
        if not all(map(math.isfinite, corners)):
            tally.drop("box", sample.image_id, "corner is not a number", box)
            continue
        if box.x1 >= box.x2 or box.y1 >= box.y2:
            tally.drop("box", sample.image_id, "empty or of negative size", box)
            continue
        inside = Box(
            box.label, max(box.x1, 0.0), max(box.y1, 0.0), min(box.x2, sample.width), min(box.y2, sample.height)
        )
        if inside.x1 >= inside.x2 or inside.y1 >= inside.y2:
            tally.drop("box", sample.image_id, "outside the image", box)
            continue
        if inside != box:
            tally.note("boxes cut at the edge of their image")
        yield inside
