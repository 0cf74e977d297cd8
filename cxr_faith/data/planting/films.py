"""The films of a manifest: each picture once, with what its rows say about it, ready to be planted in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_faith.data.dicom_headers import stated_orientation
from cxr_faith.data.images import load_image, load_mask, read_header
from cxr_faith.data.manifest import MappedManifest
from cxr_faith.data.orientation import MIRRORED, OTHER
from cxr_faith.data.planting.film import Film, Mask, PlantError
from cxr_faith.data.planting.lungs import film_of
from cxr_faith.data.sample import FAULT, YES_NO, Sample

_LARGEST_SPACING = 5.0  # mm; more is no pixel of a radiograph


@dataclass
class Row:
    """What a manifest says about one film.

    Attributes:
        sample: its first row.
        present: findings that it has or may have, in lower case.
        absent: findings that it does not have.
        answered: its yes/no questions whose answer is known.
    """

    sample: Sample
    present: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    answered: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Note what another row says."""
        if sample.kind == YES_NO and [text.casefold() for text in sample.answer or ()] in (["yes"], ["no"]):
            self.answered.append(sample)
        # A row of a data set may ask about several findings at once: nodule/mass.
        names = {
            name.strip() for name in (sample.finding or "").casefold().replace("_", " ").split("/") if name.strip()
        }
        no = sample.kind == "yes_no" and sample.answer is not None and [a.casefold() for a in sample.answer] == ["no"]
        (self.absent if no else self.present).update(names)
        self.present.update(box.label.casefold().replace("_", " ") for box in sample.boxes)


def rows_of(table: MappedManifest) -> Iterator[Row]:
    """One entry for each picture of a manifest, in the order of its rows; rows with a fault are left out.

    Args:
        table: an open manifest.
    """
    rows: dict[str, Row] = {}
    for row in table:
        sample = Sample.from_row(row)
        if row.get(FAULT) or not sample.image_id or not sample.image_path:
            continue
        rows.setdefault(sample.image_id, Row(sample)).add(sample)
    yield from rows.values()


@dataclass(frozen=True)
class OpenFilm:
    """A decoded film.

    Attributes:
        pixels: uint8 [H, W].
        film: what an object takes from it.
        masks: its organ masks by label.
        known_spacing: whether its pixel spacing is known.
        orientation: `usual` or `mirrored`; None: not stated, taken for usual.
    """

    pixels: npt.NDArray[np.uint8]
    film: Film
    masks: dict[str, Mask]
    known_spacing: bool
    orientation: str | None


def open_film(sample: Sample, root: Path, own_root: Path, spacing: float | None) -> OpenFilm:
    """Decode and measure a film.

    Args:
        sample: a row of the film.
        root: data root of the manifest.
        own_root: folder of the manifest, which may hold masks.
        spacing: millimeters per pixel of every film; None: what the header of a DICOM film says.

    Raises:
        ImageError: a picture or mask cannot be read.
        PlantError: the film is from the side or turned, in color or too small, or its masks show no lungs.
    """
    orientation = stated_orientation(sample, root)
    if orientation == OTHER:
        raise PlantError("the film is from the side or turned")
    shown = load_image(sample.image_path, root)
    if (shown[..., :1] != shown).any():
        raise PlantError("the film is in color")
    pixels = np.ascontiguousarray(shown[..., 0])
    masks = {}
    for label, path in sample.anatomy_masks:
        masks[label] = load_mask(path, root if (root / path).is_file() else own_root)
        if masks[label].shape != pixels.shape:
            raise PlantError("a mask has another size than its film")
    mm = spacing or spacing_of(sample.image_path, root)
    film = film_of(pixels, masks, mm, orientation == MIRRORED)
    return OpenFilm(pixels, film, masks, mm is not None, orientation)


def spacing_of(path: str, root: Path | None = None) -> float | None:
    """Millimeters per pixel as the header of a DICOM film says; None where it does not, or says zero.

    Args:
        path: the film, relative to `root` if that is given.
        root: folder that the file must be in.

    Raises:
        ImageError: the file is damaged.
    """
    header = read_header(path, root)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        numbers = header.get(keyword, "").strip("[]").replace("'", "").split(",")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            continue
        if all(math.isfinite(value) and 0 < value < _LARGEST_SPACING for value in values):
            return sum(values) / len(values)
    return None
