"""Writes organ masks of a manifest's pictures as `prepare … --masks` reads them, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_faith.data.dicom_headers import stated_orientation
from cxr_faith.data.folder import noted_root
from cxr_faith.data.images import ImageError, load_image
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.orientation import MIRRORED
from cxr_faith.data.sample import Sample
from cxr_faith.data.segmenters import LABELS, Masks, Segmenter
from cxr_faith.storage.atomic import replacing


@dataclass
class Segmented:
    """What became of the pictures.

    Attributes:
        pictures: number of pictures of the manifest.
        there: pictures whose masks were there already.
        written: pictures whose masks were written.
        faults: id of each picture without masks, and why.
    """

    pictures: int = 0
    there: int = 0
    written: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def write_organ_masks(
    manifest: Path,
    out: Path,
    segment: Segmenter,
    root: Path | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Segmented:
    """Write `OUT/<label>/<image_id>.png` for each organ and picture; pictures that have all of them are passed over.

    A segmenter sees a mirrored film mirrored back, so that its left lung is the patient's.

    Args:
        manifest: Parquet file or folder.
        out: folder of the masks.
        segment: gives the masks of a picture.
        root: data root; None: the one noted in the manifest's data card, else the manifest's folder.
        progress: called after each picture.
    """
    table = open_manifest(manifest)
    columns = (table[name][:] for name in ("image_id", "image_path", "orientation", "view"))
    pictures = {name: rest for name, *rest in zip(*columns, strict=True)}
    base = root or noted_root(manifest) or manifest.absolute().parent
    result = Segmented(len(pictures))
    for done, (name, (path, orientation, view)) in enumerate(pictures.items(), 1):
        files = {label: out / label / f"{name}.png" for label in LABELS}
        # An id may hold slashes, which are folders, but must not lead out of the folder of its label.
        if not name or not all(file.resolve().is_relative_to((out / label).resolve()) for label, file in files.items()):
            result.faults[str(name)] = "image id is no name of a file"
        elif all(file.is_file() for file in files.values()):
            result.there += 1
        else:
            try:
                shown = Sample("", image_path=path, orientation=orientation, view=view)
                masks = _segmented(segment, load_image(path, base), stated_orientation(shown, base) == MIRRORED)
            except ImageError as error:
                result.faults[name] = str(error)
            else:
                for label, file in files.items():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(file, durable=False) as target:  # it can be made again
                        Image.fromarray(masks[label].astype(np.uint8) * 255).save(target, "PNG")
                result.written += 1
        progress(done, len(pictures))
    return result


def _segmented(segment: Segmenter, pixels: npt.NDArray[np.uint8], mirrored: bool) -> Masks:
    """Masks of a picture that may be mirrored."""
    if not mirrored:
        return segment(pixels)
    masks = segment(np.ascontiguousarray(pixels[:, ::-1]))
    return {label: mask[:, ::-1] for label, mask in masks.items()}
