"""Joins masks and boxes of other data sets to samples by image id: organ masks, CheXlocalize, PadChest-GR.

Masks that are not PNG files below the data root are written into the manifest's folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_faith.data.boxes import from_rle, from_unit, fuse
from cxr_faith.data.folder import MASKS
from cxr_faith.data.images import ImageError, read_size, resolve
from cxr_faith.data.intake import Join, kind_of_fault
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import number, read_json, text
from cxr_faith.data.tally import PrepareError, Tally

NO_SAMPLE = "belongs to no image that was taken"


class AnatomyMasks:
    """Joins organ masks: ``FOLDER/<label>/<image_id>.png``, or ``FOLDER/<label>.json`` with COCO run lengths by id.

    The mask of an image id with a file suffix (a.jpg) may be named without it (a.png).

    Args:
        folder: Folder of the masks.
        root: Data root; PNG files below it stay where they are.
        out: Folder of the manifest that is being written.
        tally: Takes the masks that are dropped.

    Raises:
        PrepareError: The folder is missing or has neither form.
    """

    def __init__(self, folder: Path, root: Path, out: Path, tally: Tally) -> None:
        self.folder, self.root, self.out, self.tally = folder, root, out, tally
        if not folder.is_dir():
            raise PrepareError(f"{folder}: no such folder of masks")
        self.labels = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        self.rles = {path.stem: read_json(path, dict) for path in sorted(folder.glob("*.json"))}
        if not self.labels and not self.rles:
            raise PrepareError(f"{folder}: has neither <label>/<image_id>.png nor <label>.json")
        self._known: dict[str, tuple[tuple[str, str], ...]] = {}
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, sample: Sample) -> Sample:
        """Add the organ masks of the sample's image; they replace masks with the same label."""
        if sample.image_id not in self._known:
            files = [(label, self._file(label, sample)) for label in self.labels]
            files += [(label, self._from_rle(label, sample)) for label in self.rles]
            self._known[sample.image_id] = tuple((label, path) for label, path in files if path)
        added = self._known[sample.image_id]
        kept = tuple(mask for mask in sample.anatomy_masks if mask[0] not in {label for label, _ in added})
        return replace(sample, anatomy_masks=(*kept, *added))

    def count_unused(self) -> None:
        """Count the masks whose image is in no sample."""
        files = (
            (label, str(file.relative_to(self.folder / label).with_suffix("")))
            for label in self.labels
            for file in sorted((self.folder / label).rglob("*.png"))
        )
        lengths = ((label, name) for label, rles in self.rles.items() for name in rles)
        for label, name in (*files, *lengths):
            if (label, name) not in self._seen:
                self.tally.drop("mask", name, NO_SAMPLE, label)

    def _file(self, label: str, sample: Sample) -> str | None:
        exact = (self.folder / label / f"{sample.image_id}.png").is_file()
        name = sample.image_id if exact else _bare(sample.image_id)
        self._seen.add((label, name))
        try:
            file = resolve(f"{label}/{name}.png", self.folder)
            size = read_size(file, mask=True)
        except ImageError as error:
            if "file not found" not in str(error):
                self.tally.drop("mask", sample.image_id, kind_of_fault(str(error)), error)
            return None
        if size != (sample.height, sample.width):
            self.tally.drop("mask", sample.image_id, "has another size than its image", f"{label} {size}")
            return None
        if file.is_relative_to(self.root.resolve()):
            return str(PurePosixPath(file.relative_to(self.root.resolve())))
        target = _mask_path(label, sample.image_id)
        (self.out / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, self.out / target)
        return target

    def _from_rle(self, label: str, sample: Sample) -> str | None:
        name = sample.image_id if sample.image_id in self.rles[label] else _bare(sample.image_id)
        self._seen.add((label, name))
        rle = self.rles[label].get(name)
        mask = None if rle is None else decoded(rle, sample, label, self.tally)
        return None if mask is None else write_mask(mask, self.out, label, sample.image_id)


class CheXlocalize:
    """Joins the masks of CheXlocalize (COCO run lengths by image and finding) as masks of findings.

    Args:
        path: ``gt_segmentations_{val,test}.json``.
        out: Folder of the manifest that is being written; takes the masks.
        tally: Takes the masks that are dropped.

    Raises:
        PrepareError: The file is missing or damaged.
    """

    def __init__(self, path: Path, out: Path, tally: Tally) -> None:
        self.images: Mapping[str, Any] = read_json(path, dict)
        self.out, self.tally = out, tally
        self._seen: set[str] = set()

    def __call__(self, sample: Sample) -> Sample:
        """Set the mask of the sample's finding, if CheXlocalize has one and the sample does not."""
        # CheXlocalize's ids are the last three parts of the image path: patient64541_study1_view1_frontal.
        key = "_".join(PurePosixPath(sample.image_path).with_suffix("").parts[-3:])
        key = next((name for name in (sample.image_id, _bare(sample.image_id)) if name in self.images), key)
        marks = self.images.get(key)
        self._seen.add(key)
        if marks is not None and not isinstance(marks, Mapping):
            self.tally.drop("mask", key, "entry is not a mapping")
        if not isinstance(marks, Mapping) or not sample.finding or sample.finding_mask_path:
            return sample
        rle = next((rle for label, rle in marks.items() if str(label).lower() == sample.finding.lower()), None)
        mask = None if rle is None else decoded(rle, sample, sample.finding, self.tally)
        if mask is None or not mask.any():
            return sample
        return replace(sample, finding_mask_path=write_mask(mask, self.out, sample.finding, sample.image_id))

    def count_unused(self) -> None:
        """Count the images of the file that are in no sample."""
        for name in self.images:
            if name not in self._seen:
                self.tally.drop("image", name, NO_SAMPLE)


class PadChestGR:
    """Joins the boxes of PadChest-GR, given as shares of the image's size; both readers' boxes are merged.

    Args:
        path: ``grounded_reports_*.json``.
        tally: Takes the entries and boxes that are dropped.

    Raises:
        PrepareError: The file is missing or damaged.
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
        return replace(sample, boxes=(*sample.boxes, *fuse(boxes)))

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
    if not all(isinstance(values, list) for values in (labels, boxes, more)):
        return None
    return [(str(label).lower(), box) for box in (*boxes, *more) for label in labels]


def joins(
    root: Path, out: Path, tally: Tally, masks: str | None, chexlocalize: str | None, padchest_gr: str | None
) -> list[Join]:
    """The joins that `prepare`'s options ask for, in a fixed order."""
    asked: list[Join] = []
    if masks:
        asked.append(AnatomyMasks(Path(masks), root, out, tally))
    if chexlocalize:
        asked.append(CheXlocalize(Path(chexlocalize), out, tally))
    if padchest_gr:
        asked.append(PadChestGR(Path(padchest_gr), tally))
    return asked


def decoded(rle: Any, sample: Sample, label: str, tally: Tally) -> npt.NDArray[np.bool_] | None:
    """A run-length mask of a sample's image; None, and counted, if it is damaged or of another size."""
    try:
        mask = from_rle(rle)
    except PrepareError:
        raise
    except ValueError as error:
        tally.drop("mask", sample.image_id, "run lengths are damaged", f"{label}: {error}")
        return None
    if mask.shape != (sample.height, sample.width):
        tally.drop("mask", sample.image_id, "has another size than its image", f"{label} {mask.shape}")
        return None
    return mask


def write_mask(mask: npt.NDArray[np.bool_], out: Path, label: str, image_id: str) -> str:
    """Write a mask as PNG into the manifest's folder; returns its path relative to that folder."""
    target = _mask_path(label, image_id)
    (out / target).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(out / target)
    return target


def _mask_path(label: str, image_id: str) -> str:
    """Path of a mask in the manifest's folder."""
    names = []
    # Image ids may hold slashes and dots: these are replaced, and a hash keeps the names unique.
    for word in (label, image_id):
        name = re.sub(r"[^\w -]", "_", word)
        names.append(name if name == word else f"{name}-{hashlib.blake2b(word.encode(), digest_size=4).hexdigest()}")
    return f"{MASKS}/{names[0]}/{names[1]}.png"


def _bare(image_id: str) -> str:
    """An image id without a picture's file suffix; ids of the source `table` are paths and have one."""
    return re.sub(r"\.(png|jpe?g|dcm|dicom)$", "", image_id, flags=re.IGNORECASE)
