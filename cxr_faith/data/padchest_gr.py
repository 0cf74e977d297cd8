"""PadChest-GR: two readers' boxes of findings on the pictures of PadChest, joined to samples by image id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_faith.data.boxes import from_unit, fuse, limited
from cxr_faith.data.intake import NO_SAMPLE
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import number, read_json, text
from cxr_faith.data.tally import Tally


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
        self.images: dict[str, list[tuple[str, Any]]] = {}
        self._seen: set[str] = set()
        for position, study in enumerate(read_json(path, list)):
            name = text(study.get("ImageID")) if isinstance(study, dict) else None
            findings = study.get("findings") if isinstance(study, dict) else None
            if name is None or not isinstance(findings, list):
                tally.drop("row", f"{path.name} entry {position}", "entry without ImageID or findings")
                continue
            boxes = self.images.setdefault(name.removesuffix(".png"), [])
            for place, finding in enumerate(findings):
                drawn = _drawn(finding)
                if drawn is None:
                    fault = "finding that is not {labels, boxes, extra_boxes}"
                    tally.drop("box", name, fault, f"entry {position}, finding {place}")
                boxes += drawn or ()

    def __call__(self, sample: Sample) -> Sample:
        """Add the boxes of the sample's image."""
        assert sample.height and sample.width
        name = sample.image_id.removesuffix(".png")
        name = name if name in self.images else PurePosixPath(sample.image_path).stem
        self._seen.add(name)
        boxes = []
        for position, (label, corners) in enumerate(self.images.get(name, ())):
            values = [number(corner) for corner in corners] if isinstance(corners, list) else []
            if len(values) != 4 or not all(0.0 <= value <= 1.0 for value in values):
                self.tally.drop("box", sample.image_id, "corner is not a share of the image", f"box {position}")
            elif values[0] >= values[2] or values[1] >= values[3]:
                self.tally.drop("box", sample.image_id, "empty or of negative size", f"box {position}: {values}")
            else:
                boxes.append(Box(label, *from_unit(values, (sample.height, sample.width))))
        return replace(sample, boxes=(*sample.boxes, *fuse(limited(boxes, sample.image_id, self.tally))))

    def count_unused(self) -> None:
        """Count the images with boxes that are in no sample."""
        for name, boxes in self.images.items():
            if boxes and name not in self._seen:
                self.tally.drop("image", name, NO_SAMPLE)


def _drawn(finding: Any) -> list[tuple[str, Any]] | None:
    """(label, corners) of each box of a PadChest-GR finding, for each of its labels; None for another form."""
    if not isinstance(finding, dict):
        return None
    labels, boxes, more = (finding.get(key) or [] for key in ("labels", "boxes", "extra_boxes"))
    if not all(isinstance(values, list) for values in (labels, boxes, more)) or None in map(text, labels):
        return None
    return [(str(label).lower(), box) for box in (*boxes, *more) for label in labels]
