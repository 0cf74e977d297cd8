"""Patient, sex, age, view and orientation from the headers of DICOM pictures, where a data set does not state them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_faith.data.images import ImageError, read_header
from cxr_faith.data.orientation import OTHER, orientation_of
from cxr_faith.data.sample import Sample
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tally import Tally


def stated_orientation(sample: Sample, root: Path) -> str | None:
    """One of `ORIENTATIONS`, by a sample's row, else by the header of its picture; None where neither says.

    Args:
        sample: its view counts too.
        root: folder that its path is relative to.

    Raises:
        ImageError: the picture is missing or damaged.
    """
    if sample.view == "LATERAL":
        return OTHER
    return sample.orientation or orientation_of(read_header(sample.image_path, root))


class DicomHeaders:
    """Adds what the header of a sample's picture says to a sample that does not say it.

    Args:
        root: folder that image paths are relative to.
        tally: takes a note of headers that cannot be read.
    """

    def __init__(self, root: Path, tally: Tally) -> None:
        self._root, self._tally = root, tally
        self._last: tuple[str, dict[str, Any]] = ("", {})

    def __call__(self, sample: Sample) -> Sample:
        """Fill in `patient_id`, `sex`, `age`, `view` and `orientation`."""
        if self._last[0] != sample.image_path:  # the questions about an image follow each other
            self._last = sample.image_path, self._read(sample.image_path)
        return replace(sample, **{name: value for name, value in self._last[1].items() if not getattr(sample, name)})

    def count_unused(self) -> None:
        """Nothing: every header belongs to a sample."""

    def _read(self, path: str) -> dict[str, Any]:
        try:
            texts = read_header(path, self._root)
        except ImageError:
            self._tally.note("headers that cannot be read")
            return {}
        return {
            "patient_id": texts.get("PatientID"),
            "sex": read_sex(texts.get("PatientSex")),
            "age": read_age(texts.get("PatientAge")),
            "view": read_view(texts.get("ViewPosition")),
            "orientation": orientation_of(texts),
        }
