"""PadChest-GR: two readers' boxes of findings on the pictures of PadChest, and their join to samples by image id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_faith.data.boxes import from_unit, fuse, limited
from cxr_faith.data.intake import NO_SAMPLE
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import number, read_json, text
from cxr_faith.data.tally import Tally

Labeled = tuple[tuple[str, ...], Any]
"""Labels of a box and its corners as the file has them."""


@dataclass(frozen=True)
class Finding:
    """A finding of a report.

    Attributes:
        labels: its labels in lower case.
        abnormal: whether it is one; false for a sentence that says what is normal. Where the report does not say so:
            whether it has boxes.
        boxes: corners as shares of the image's size, by the first reader.
        extra_boxes: the same by the second reader.
    """

    labels: tuple[str, ...]
    abnormal: bool
    boxes: tuple[Any, ...]
    extra_boxes: tuple[Any, ...]

    def labeled(self, boxes: Iterable[Any]) -> list[Labeled]:
        """The finding's labels and the corners of each box."""
        return [(self.labels, box) for box in boxes]


@dataclass(frozen=True)
class Study:
    """The report about one image; `image_id` is the name of its file without the suffix."""

    image_id: str
    study_id: str | None
    findings: tuple[Finding, ...]


def read_studies(path: Path, tally: Tally) -> Iterator[Study]:
    """Read `grounded_reports_*.json`; entries and findings of another form are counted.

    Raises:
        PrepareError: the file is missing or damaged.
    """
    for position, study in enumerate(read_json(path, list)):
        name = text(study.get("ImageID")) if isinstance(study, dict) else None
        findings = study.get("findings") if isinstance(study, dict) else None
        if name is None or not isinstance(findings, list):
            tally.drop("row", f"{path.name} entry {position}", "entry without ImageID or findings")
            continue
        known = []
        for place, finding in enumerate(findings):
            if (read := _finding(finding)) is not None:
                known.append(read)
            else:
                fault = "finding that is not {labels, boxes, extra_boxes}"
                tally.drop("box", name, fault, f"entry {position}, finding {place}")
        yield Study(name.removesuffix(".png"), text(study.get("StudyID")), tuple(known))


def in_pixels(
    boxes: Iterable[Labeled], size: tuple[int, int], image_id: str, tally: Tally, whose: str = ""
) -> list[Box]:
    """The boxes in pixels of a picture, one for each label; those that are no boxes are counted.

    Args:
        boxes: labels and corners, which are shares of the picture's size.
        size: (height, width) of the picture.
        image_id: its id, for the list of drops.
        tally: takes the boxes that are dropped, each once, with its numbers as published.
        whose: the reader, for the list of drops.
    """
    usable = []
    for position, (labels, corners) in enumerate(boxes):
        values = [number(corner) for corner in corners] if isinstance(corners, list) else []
        detail = f"{whose} box {position}: {values}".strip()
        if len(values) != 4 or not all(0.0 <= value <= 1.0 for value in values):
            tally.drop("box", image_id, "corner is not a share of the image", detail)
        elif values[0] >= values[2] or values[1] >= values[3]:
            tally.drop("box", image_id, "empty or of negative size", detail)
        else:
            usable += [Box(label, *from_unit(values, size)) for label in labels]
    return usable


class PadChestGR:
    """Joins the boxes of PadChest-GR, given as shares of the image's size; both readers' boxes are merged.

    Args:
        path: `grounded_reports_*.json`.
        tally: takes the entries and boxes that are dropped.

    Raises:
        PrepareError: the file is missing or damaged.
    """

    def __init__(self, path: Path, tally: Tally) -> None:
        self.tally = tally
        self.images: dict[str, list[Labeled]] = {}
        self._seen: set[str] = set()
        for study in read_studies(path, tally):
            boxes = self.images.setdefault(study.image_id, [])
            for finding in study.findings:
                boxes += finding.labeled((*finding.boxes, *finding.extra_boxes))

    def __call__(self, sample: Sample) -> Sample:
        """Add the boxes of the sample's image."""
        assert sample.height and sample.width
        name = sample.image_id.removesuffix(".png")
        name = name if name in self.images else PurePosixPath(sample.image_path).stem
        self._seen.add(name)
        size = sample.height, sample.width
        boxes = in_pixels(self.images.get(name, ()), size, sample.image_id, self.tally)
        return replace(sample, boxes=(*sample.boxes, *fuse(limited(boxes, sample.image_id, self.tally))))

    def count_unused(self) -> None:
        """Count the images with boxes that are in no sample."""
        for name, boxes in self.images.items():
            if boxes and name not in self._seen:
                self.tally.drop("image", name, NO_SAMPLE)


def _finding(finding: Any) -> Finding | None:
    """A finding of a report; None for another form. Findings that say what is normal often lack keys."""
    if not isinstance(finding, dict):
        return None
    labels, boxes, more = (finding.get(key) or [] for key in ("labels", "boxes", "extra_boxes"))
    if not all(isinstance(values, list) for values in (labels, boxes, more)) or None in map(text, labels):
        return None
    names = tuple(" ".join(str(label).lower().split()) for label in labels)
    stated = finding.get("abnormal")
    abnormal = bool(boxes or more) if stated is None else stated is not False
    return Finding(names, abnormal, tuple(boxes), tuple(more))
