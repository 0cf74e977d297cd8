"""CheXlocalize: masks of findings on the pictures of CheXpert, joined to samples by image id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_faith.data.intake import NO_SAMPLE
from cxr_faith.data.masks import bare_id, decoded, write_mask
from cxr_faith.data.sample import Sample
from cxr_faith.data.tables import read_json
from cxr_faith.data.tally import Tally

SAME = {"airspace opacity": "lung opacity"}
"""Names of CheXlocalize that differ from CheXpert's."""


class CheXlocalize:
    """Joins the masks of CheXlocalize (COCO run lengths by image and finding) as masks of findings.

    Args:
        path: `gt_segmentations_{val,test}.json`.
        out: folder of the manifest that is being written; takes the masks.
        tally: takes the masks that are dropped.

    Raises:
        PrepareError: the file is missing or damaged.
    """

    def __init__(self, path: Path, out: Path, tally: Tally) -> None:
        self.images: Mapping[str, Any] = read_json(path, dict)
        self.out, self.tally = out, tally
        self._seen: set[str] = set()

    def __call__(self, sample: Sample) -> Sample:
        """Set the mask of the sample's finding, if CheXlocalize has one and the sample does not."""
        # CheXlocalize's ids are the last three parts of the image path: patient64541_study1_view1_frontal.
        path = PurePosixPath(sample.image_path)
        key = "_".join((*path.parts[-3:-1], path.stem))
        key = next((name for name in (sample.image_id, bare_id(sample.image_id)) if name in self.images), key)
        marks = self.images.get(key)
        self._seen.add(key)
        if marks is not None and not isinstance(marks, Mapping):
            self.tally.drop("mask", key, "entry is not a mapping")
        if not isinstance(marks, Mapping) or not sample.finding or sample.finding_mask_path:
            return sample
        finding = sample.finding.lower()
        rle = next(
            (rle for label, rle in marks.items() if SAME.get(str(label).lower(), str(label).lower()) == finding), None
        )
        mask = None if rle is None else decoded(rle, sample, sample.finding, self.tally)
        if mask is None or not mask.any():
            return sample
        return replace(sample, finding_mask_path=write_mask(mask, self.out, sample.finding, sample.image_id))

    def count_unused(self) -> None:
        """Count the images of the file that are in no sample."""
        for name in self.images:
            if name not in self._seen:
                self.tally.drop("image", name, NO_SAMPLE)
