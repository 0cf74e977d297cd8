"""Maps and curves of one sample in few bytes, for the page.

The bytes hold, for each of the sample's rows, a map of 64 levels on its own scale (in the first row of a method only)
and both curves in 256 levels between the sample's lowest and highest score. They are deflated and base64.
"""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.records.controls import CENTER
from cxr_faith.report.figures import scaled_all
from cxr_faith.report.side_by_side import side_by_side

MAP_LEVELS, CURVE_LEVELS = 64, 256
DETAIL_COLUMNS = ("k", "deletion_scores", "insertion_scores", "map", "grid_h", "grid_w", "grids")
"""The columns of the records that maps and curves of samples are made from."""

Columns = dict[str, list[Any]]
"""Column name → values of all rows."""


@dataclass(frozen=True)
class Packed:
    """The maps and curves of one sample."""

    detail: str | None
    """The bytes in base64; None if no row has a map or curves."""
    low: float
    """The sample's lowest score, level 0 of the curves."""
    high: float
    """The sample's highest score, the last level of the curves."""
    grid: tuple[int, int] | None
    """Rows and columns of the maps, those of several pictures side by side; None without a map."""
    has: list[tuple[bool, bool]]
    """For each row, whether its map and its curves are among the bytes."""


def pack(columns: Columns, rows: range) -> Packed:
    """Pack the maps and curves of one sample.

    Args:
        columns: `DETAIL_COLUMNS` and `method` of all rows.
        rows: the sample's rows.
    """
    curves = {row: curve for row in rows if (curve := _curves(columns, row)) is not None}
    known = np.concatenate([curve.ravel() for curve in curves.values()] or [np.zeros(0)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    maps = _first_maps(columns, rows)
    grid, shades = None, dict[int, npt.NDArray[np.float64]]()
    if maps:
        shown = list(maps.values())
        grid = shown[-1].shape[0], shown[-1].shape[1]
        strengths, _ = scaled_all(np.stack(shown))
        shades = dict(zip(maps, strengths, strict=True))
    parts = []
    for row in rows:
        if row in shades:
            parts.append(_levels(shades[row], MAP_LEVELS))
        if row in curves:
            parts.append(_levels((curves[row] - low) / ((high - low) or 1), CURVE_LEVELS))
    detail = base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii") if parts else None
    return Packed(detail, low, high, grid, [(row in shades, row in curves) for row in rows])


def _first_maps(columns: Columns, rows: range) -> dict[int, npt.NDArray[np.float64]]:
    """Row → its map [grid_h, grid_w], for the first row with a map of each method."""
    maps, done = {}, {CENTER}  # the center's map has no positive value and is the same for every picture
    for row in rows:
        method, values = columns["method"][row], columns["map"][row]
        if method in done or missing(values) or not np.isfinite(values).all():
            continue
        sheet = _sheet(columns, row)
        if sheet is not None:
            done.add(method)
            maps[row] = sheet
    return maps


def _sheet(columns: Columns, row: int) -> npt.NDArray[np.float64] | None:
    """A row's map, with the parts of several pictures side by side; None where its size is not recorded."""
    values, width = np.asarray(columns["map"][row], np.float64), columns["grid_w"][row]
    if not missing(width):
        return values.reshape(-1, int(width))
    grids = columns["grids"][row] if "grids" in columns else None
    if grids is None or missing(grids):
        return None
    return side_by_side(values.reshape(-1, grids[0]["w"]), len(grids))


def _curves(columns: Columns, row: int) -> npt.NDArray[np.float64] | None:
    """Deletion and insertion scores [2, steps + 1]; None if a score is missing."""
    sides = [columns["deletion_scores"][row], columns["insertion_scores"][row]]
    if any(missing(side) for side in sides):
        return None
    both = np.asarray(sides, np.float64)
    return both if np.isfinite(both).all() else None


def _levels(share: npt.NDArray[np.float64], levels: int) -> bytes:
    return np.rint(share * (levels - 1)).astype(np.uint8).tobytes()


def missing(value: object) -> bool:
    """Whether a value of a record is null or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
