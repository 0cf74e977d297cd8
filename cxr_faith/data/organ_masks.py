"""Organ masks, joined to samples by image id. Masks that are not PNG files in the data root are copied or written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cxr_faith.data.images import ImageError, read_size, resolve
from cxr_faith.data.intake import NO_SAMPLE, kind_of_fault
from cxr_faith.data.masks import bare_id, decoded, mask_path, write_mask
from cxr_faith.data.sample import Sample
from cxr_faith.data.tables import read_json
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.storage.atomic import replacing


class AnatomyMasks:
    """Joins organ masks: `FOLDER/<label>/<image_id>.png`, or `FOLDER/<label>.json` with COCO run lengths by id.

    The mask of an image id with a file suffix (a.jpg) may be named without it (a.png).

    Args:
        folder: folder of the masks.
        root: data root; PNG files below it stay where they are.
        out: folder of the manifest that is being written.
        tally: takes the masks that are dropped.

    Raises:
        PrepareError: the folder is missing or has neither form.
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
        name, bare = sample.image_id, bare_id(sample.image_id)
        try:
            if name != bare and not (self.folder / label / f"{name}.png").is_file():
                name = bare
            self._seen.add((label, name))
            file = resolve(f"{label}/{name}.png", self.folder)
            size = read_size(file, mask=True)
        except (ImageError, OSError) as error:
            if "file not found" not in str(error):
                self.tally.drop("mask", sample.image_id, kind_of_fault(str(error)), error)
            return None
        if size != (sample.height, sample.width):
            self.tally.drop("mask", sample.image_id, "has another size than its image", f"{label} {size}")
            return None
        if file.is_relative_to(self.root.resolve()):
            return str(PurePosixPath(file.relative_to(self.root.resolve())))
        target = mask_path(label, sample.image_id)
        with file.open("rb") as original, replacing(self.out / target, durable=False) as copy:
            shutil.copyfileobj(original, copy)
        return target

    def _from_rle(self, label: str, sample: Sample) -> str | None:
        name = sample.image_id if sample.image_id in self.rles[label] else bare_id(sample.image_id)
        self._seen.add((label, name))
        rle = self.rles[label].get(name)
        mask = None if rle is None else decoded(rle, sample, label, self.tally)
        return None if mask is None else write_mask(mask, self.out, label, sample.image_id)
