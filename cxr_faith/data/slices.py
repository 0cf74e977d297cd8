"""A CT or MRI series as pictures in order: one file a slice, of which some are shown with a question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_faith.data.dicom import is_dicom
from cxr_faith.data.images import ImageError, read_header

_SUFFIXES = (".png", ".jpg", ".jpeg")
_PLACE, _NUMBER, _SERIES = "ImagePositionPatient", "InstanceNumber", "SeriesInstanceUID"


def slice_files(folder: str | Path, count: int) -> list[Path]:
    """Slices of a series, spread evenly: the middle ones of `count` slabs of equal thickness.

    The order is that of the positions in the patient where all files state one, else that of the instance numbers, else
    that of the names.

    Args:
        folder: with the slices of one series, a DICOM, PNG or JPEG file each; other files are left out.
        count: how many slices; all of them if there are no more.

    Raises:
        ImageError: there is no slice, a header is damaged, or the files belong to several series.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"the number of slices must be at least 1, got {count}")
    files = sorted(path for path in Path(folder).iterdir() if _is_slice(path))
    if not files:
        raise ImageError(f"{folder}: no slice: it holds no DICOM, PNG or JPEG file")
    headers = [read_header(path) for path in files]
    series = {header[_SERIES] for header in headers if _SERIES in header}
    if len(series) > 1:
        raise ImageError(f"{folder}: slices of {len(series)} series: give a folder with one of them")
    ordered = [files[place] for place in np.argsort(_places(headers), kind="stable")]
    return [ordered[place] for place in middles(len(ordered), count)]


def middles(slices: int, count: int) -> list[int]:
    """The middle slice of each of `count` slabs of equal thickness; all slices if there are no more.

    Examples:
        >>> middles(9, 3)
        [1, 4, 7]
        >>> middles(2, 8)
        [0, 1]
    """
    return [(2 * slab + 1) * slices // (2 * count) for slab in range(count)] if count < slices else [*range(slices)]


def _is_slice(path: Path) -> bool:
    if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    return path.suffix.lower() in _SUFFIXES or is_dicom(path)


def _places(headers: list[dict[str, str]]) -> npt.NDArray[np.float64]:
    """Where each slice lies along the axis on which they are stacked; the numbers of the files if that is unknown."""
    try:
        places = np.array([[float(part) for part in header[_PLACE].strip("[]").split(",")] for header in headers])
        if places.shape == (len(headers), 3) and np.isfinite(places).all():
            axis = np.linalg.svd(places - places.mean(0))[2][0]  # slices are stacked on a line
            along: npt.NDArray[np.float64] = places @ axis * np.sign(axis[np.abs(axis).argmax()])
            return along
    except (KeyError, ValueError):
        pass
    try:
        return np.array([float(header[_NUMBER]) for header in headers])
    except (KeyError, ValueError):
        return np.arange(len(headers), dtype=np.float64)
