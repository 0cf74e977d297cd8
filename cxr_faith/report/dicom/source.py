"""The film that objects refer to, and its place in space."""

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from cxr_faith.data.orientation import OTHER, orientation_of

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")

USUAL = ("L", "F")
"""Directions of the columns and of the rows of the usual view: to the patient's left and feet."""
_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def read_source(path: str | Path) -> Dataset:
    """The header of a film, with a frame of reference.

    Headers of projection films seldom state one. Then the film gets a frame of its own in the plane of the detector,
    the same each time, in which objects of one film lie on each other; they name the film as their source either way.

    Raises:
        ValueError: not a DICOM film of one frame, or its header lacks what an object must repeat.
    """
    try:
        source = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        raise ValueError(f"{path}: DICOM objects belong to a DICOM film, and this is none") from None
    missing = [keyword for keyword in _NEEDED if not source.get(keyword)]
    if missing:
        raise ValueError(f"{path}: the header has no {', '.join(missing)}, which objects of this film must repeat")
    if int(source.get("NumberOfFrames") or 1) > 1:
        raise ValueError(f"{path}: has several frames; objects are written for films of one")
    if "FrameOfReferenceUID" not in source or "ImageOrientationPatient" not in source:
        _give_frame(source)
    return source


def orientation(source: Dataset) -> tuple[str, str] | None:
    """The directions of a film's columns and rows, such as L and F, to the patient's left and feet.

    They are those of the usual view where the header does not say; None where it says no more than that it is lateral.
    """
    stated = tuple(map(str, source.get("PatientOrientation") or ()))
    if len(stated) == 2 and all(direction[:1] in _AXES for direction in stated):
        return stated
    view = {"ViewPosition": str(source.get("ViewPosition") or "")}
    return None if orientation_of(view) == OTHER else USUAL


def _give_frame(source: Dataset) -> None:
    across, down = orientation(source) or USUAL
    source.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(source.SOPInstanceUID), "frame of the detector"])
    source.PositionReferenceIndicator = ""
    source.ImagePositionPatient = [0, 0, 0]
    source.ImageOrientationPatient = [*_AXES[across[0]], *_AXES[down[0]]]
    stated = source.get("PixelSpacing") or source.get("ImagerPixelSpacing") or ()
    source.PixelSpacing = list(stated) if len(stated) == 2 and all(float(v) > 0 for v in stated) else [1, 1]
    source.SliceThickness = 1
