"""Checks every sample on its way into a manifest; whatever is dropped or changed is counted.

A sample is dropped if its picture cannot be opened, its id is already used or its question is missing. An unusable box
or mask is dropped and its sample kept. A box that crosses the picture's edge is clipped.

Reasons come from a fixed vocabulary, because they are printed. Details go into the list of drops. Neither holds text
of the data set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cxr_faith.data.images import ImageError, read_size, resolve
from cxr_faith.data.picture_files import not_found
from cxr_faith.data.sample import Box, Sample, SampleError, ShownImage
from cxr_faith.data.tally import Tally

NO_SAMPLE = "belongs to no image that was taken"


class Join(Protocol):
    """Adds boxes or masks from another data set to samples."""

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with its boxes or masks added; its height and width must be known."""

    def count_unused(self) -> None:
        """After the last sample: count the boxes or masks that belong to no sample."""


def accept(
    samples: Iterable[Sample], root: Path, tally: Tally, joins: Sequence[Join] = (), folder: Path | None = None
) -> Iterator[Sample]:
    """Yield the samples that can be evaluated; count the others.

    Args:
        samples: the samples of a source.
        root: folder that image paths are relative to and must stay in.
        tally: takes the counts.
        joins: applied to each sample before its boxes are checked.
        folder: folder of the manifest, where a source may have written masks.

    Yields:
        the accepted samples, with the size of their picture.
    """
    ids: set[str] = set()
    named: dict[str, str] = {}
    pictures, masks = _Pictures(root), _Masks(root, folder, tally)
    for given in samples:
        tally.seen += 1
        sample = given.storable()
        if sample != given:
            tally.note("texts with characters that no file can hold, replaced by �")
        if sample.sample_id in ids:
            tally.drop("question", sample.sample_id, "sample id is already used")
            continue
        ids.add(sample.sample_id)
        if fault := _fault(sample):
            tally.drop("question", sample.sample_id, fault)
            continue
        size = pictures.size(sample)
        if isinstance(size, str):
            reason, _, detail = size.partition("\n")
            tally.drop("image", sample.image_id, reason, detail)
            if reason == "file not found" and tally.missing is None:
                tally.missing = not_found(sample.image_path, root)
            tally.drop("question", sample.sample_id, f"image {reason}", sample.image_path)
            continue
        if named.setdefault(sample.image_id, sample.image_path) != sample.image_path:
            tally.drop("question", sample.sample_id, "image_id already names another picture", sample.image_path)
            continue
        if unusable := _others_fault(sample, pictures, named):
            reason, path = unusable
            tally.drop("question", sample.sample_id, reason, path)
            if reason == "image file not found" and tally.missing is None:
                tally.missing = not_found(path, root)
            continue
        sample = masks.checked(replace(sample, height=size[0], width=size[1]))
        for join in joins:
            sample = join(sample)
        sizes = {image.image_id: pictures.size(_with_picture(sample, image)) for image in sample.images}
        sample = replace(
            sample,
            boxes=tuple(_boxes(sample.boxes, sample, tally, sizes)),
            readers=tuple(
                (name, tuple(_boxes(drawn, sample, tally, sizes, "reader's box"))) for name, drawn in sample.readers
            ),
        )
        tally.take(sample)
        yield sample
    for join in joins:
        join.count_unused()


def _others_fault(sample: Sample, pictures: _Pictures, named: dict[str, str]) -> tuple[str, str] | None:
    """(reason, path) of a picture that the question also shows and that cannot be used; None: all can."""
    for image in sample.images:
        size = pictures.size(_with_picture(sample, image))
        if isinstance(size, str):
            return f"image {size.partition(chr(10))[0]}", image.path
        if named.setdefault(image.image_id, image.path) != image.path:
            return "image_id already names another picture", image.path
    return None


def _with_picture(sample: Sample, image: ShownImage) -> Sample:
    """The sample with another of its pictures as its own."""
    return replace(sample, image_path=image.path, height=None, width=None)


class _Pictures:
    """Size of each picture, or why it cannot be used; looked up once per picture."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, tuple[int, int] | str] = {}

    def size(self, sample: Sample) -> tuple[int, int] | str:
        """Height and width, or a fault as `reason` newline `detail`.

        If the source states a size and the file exists and is not empty, the file is not opened: opening hundreds of
        thousands of pictures takes hours on a shared file system. `prepare check` opens them.
        """
        if sample.image_path not in self.known:
            self.known[sample.image_path] = self._look(sample)
        return self.known[sample.image_path]

    def _look(self, sample: Sample) -> tuple[int, int] | str:
        try:
            if sample.height and sample.width:
                empty = not resolve(sample.image_path, self.root).stat().st_size
                return "file is empty\n" if empty else (sample.height, sample.width)
            return read_size(sample.image_path, self.root)
        except (ImageError, OSError) as error:
            return f"{kind_of_fault(str(error))}\n{error}"


class _Masks:
    """Checks the mask files that a source names, and the pictures without the finding, each once."""

    def __init__(self, root: Path, folder: Path | None, tally: Tally) -> None:
        self.root, self.folder, self.tally = root, folder, tally
        self.known: dict[tuple[str, tuple[int, int]], bool] = {}

    def checked(self, sample: Sample) -> Sample:
        """The sample without unusable masks and pairs."""
        if sample.pair_path and not self._usable(sample.pair_path, sample, "pair"):
            sample = replace(sample, pair_path=None)
        if not sample.finding_mask_path and not sample.anatomy_masks:
            return sample
        organs = tuple((label, path) for label, path in sample.anatomy_masks if self._usable(path, sample))
        finding = sample.finding_mask_path
        if finding and not self._usable(finding, sample):
            finding = None
        return replace(sample, anatomy_masks=organs, finding_mask_path=finding)

    def _usable(self, path: str, sample: Sample, what: str = "mask") -> bool:
        assert sample.height and sample.width
        key = path, (sample.height, sample.width)
        if key not in self.known:
            self.known[key] = self._look(*key, sample.image_id, what)
        return self.known[key]

    def _look(self, path: str, expected: tuple[int, int], image_id: str, what: str) -> bool:
        try:
            # The root comes first, as in an evaluation.
            own = self.folder is not None and not (self.root / path).is_file() and (self.folder / path).is_file()
            size = read_size(path, self.folder if own else self.root, mask=what == "mask")
        except (ImageError, OSError) as error:
            self.tally.drop(what, image_id, kind_of_fault(str(error)), error)
            return False
        if size != expected:
            self.tally.drop(what, image_id, "has another size than its image", f"{path} {size}")
        return size == expected


def kind_of_fault(message: str) -> str:
    """The fault in a few words of the fixed vocabulary, for the message of an `ImageError`."""
    for words in ("file not found", "outside the data root", "not a usable path", "is not a file", "not an image"):
        if words in message:
            return words
    return "cannot be opened"


def _fault(sample: Sample) -> str | None:
    """What is wrong with a sample, its boxes and its picture aside; None if nothing is."""
    try:
        replace(sample, boxes=(), readers=()).validate()
    except SampleError as error:
        return str(error).partition(":")[0].partition(" '")[0]
    if sample.kind == "yes_no" and sample.answer is not None:
        words = {answer.casefold() for answer in sample.answer}
        if len(words) != 1 or not words <= {"yes", "no"}:
            return "yes/no question whose answer is neither"
    return None


def _boxes(
    boxes: Iterable[Box], sample: Sample, tally: Tally, sizes: Mapping[str, tuple[int, int] | str], what: str = "box"
) -> Iterator[Box]:
    """The usable ones of a sample's boxes, clipped to their picture, without duplicates.

    Args:
        boxes: in pixels of their picture.
        sample: its picture can be used.
        tally: counts the others.
        sizes: image_id → height and width of each picture of a question that shows several.
        what: how the tally calls them.
    """
    assert sample.height and sample.width
    for position, box in enumerate(dict.fromkeys(boxes)):
        corners = (box.x1, box.y1, box.x2, box.y2)
        detail = f"{what} {position}: {corners}"
        if not all(map(math.isfinite, corners)):
            tally.drop(what, sample.image_id, "corner is not a number", detail)
            continue
        if box.x1 >= box.x2 or box.y1 >= box.y2:
            tally.drop(what, sample.image_id, "empty or of negative size", detail)
            continue
        if box.image_id not in (None, sample.image_id, *sizes):
            tally.drop(what, sample.image_id, "on a picture that the question does not show", detail)
            continue
        size = sizes.get(box.image_id or "", "")
        height, width = (sample.height, sample.width) if isinstance(size, str) else size
        inside = replace(box, x1=max(box.x1, 0.0), y1=max(box.y1, 0.0), x2=min(box.x2, width), y2=min(box.y2, height))
        if inside.x1 >= inside.x2 or inside.y1 >= inside.y2:
            tally.drop(what, sample.image_id, "outside the image", detail)
            continue
        if inside != box:
            tally.note("boxes cut at the edge of their image", (sample.image_id, box))
        yield inside
