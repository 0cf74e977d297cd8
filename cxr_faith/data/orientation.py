"""Which sides of the patient lie at the left and at the right edge of a picture, as far as that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_faith.data.subgroups import read_view

ORIENTATIONS = USUAL, MIRRORED, OTHER = ("usual", "mirrored", "other")
"""A frontal picture whose columns run to the patient's left; to the right; a picture from the side, or turned."""

Sides = tuple[str, str]
"""What lies at the left and at the right edge: R and L, L and R, or two empty texts where neither is known."""

USUAL_SIDES: Sides = ("R", "L")
MIRRORED_SIDES: Sides = ("L", "R")
UNKNOWN_SIDES: Sides = ("", "")
_SIDES: Mapping[str, Sides] = {USUAL: USUAL_SIDES, MIRRORED: MIRRORED_SIDES, OTHER: UNKNOWN_SIDES}


def orientation_of(header: Mapping[str, str]) -> str | None:
    """One of `ORIENTATIONS`, by a DICOM header; None where it does not say.

    Args:
        header: keyword → text, as `images.read_header` gives it.
    """
    if read_view(header.get("ViewPosition")) == "LATERAL":
        return OTHER
    to = columns_run_to(header)
    if not to:
        return None
    return USUAL if to.startswith("L") else MIRRORED if to.startswith("R") else OTHER


def columns_run_to(header: Mapping[str, str]) -> str:
    """The direction in which the columns run, such as L, to the patient's left; empty if it is not stated."""
    return "".join(filter(str.isalpha, header.get("PatientOrientation", "").replace("\\", ",").split(",")[0]))


def sides_of(orientation: str | None, view: str | None = None) -> Sides:
    """The sides at a picture's edges; the usual ones where nothing is stated.

    Args:
        orientation: one of `ORIENTATIONS`.
        view: of the sample, such as `LATERAL`.
    """
    return UNKNOWN_SIDES if view == "LATERAL" else _SIDES.get(orientation or USUAL, USUAL_SIDES)


def sides_of_each(picture_ids: Sequence[str], own: str, orientation: str | None, view: str | None) -> list[Sides]:
    """The sides of each picture of a question; of others than its own nothing is stated, so the usual ones.

    Args:
        picture_ids: ids of the pictures.
        own: id of the picture that orientation and view belong to.
        orientation: one of `ORIENTATIONS`.
        view: of the sample.
    """
    return [sides_of(orientation, view) if each == own else USUAL_SIDES for each in picture_ids]
