"""Single samples on the page: their scores, and their maps and curves in few bytes.

A sample's detail is one string of bytes, deflated and base64: for each of its rows a map of 64 levels on its own scale
(the first row of a method only) and both curves in 256 levels between the sample's lowest and highest score.
"""

import base64
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.records.controls import CENTER
from cxr_faith.report.figures import scaled_all
from cxr_faith.summary.board import Setting

MAP_LEVELS, CURVE_LEVELS = 64, 256
ROW_BYTES = 70
"""Bytes of one row's scores on the page, roughly."""

COLUMNS = (
    "image_id",
    "question",
    "reference",
    "predicted",
    "generated",
    "kind",
    "finding",
    "present",
    "correct",
    "status",
    "reason",
    "p_yes",
    "margin",
    "effect",
    "s_original",
    "s_substrate",
    "own_substrate",
    "deletion_auc",
    "insertion_auc",
    "srg",
    "srg_logit",
    "gap_srg_random",
    "gap_srg_center",
    "random_p",
)
"""The columns of the records that a page of samples is made from."""
DETAIL_COLUMNS = ("k", "deletion_scores", "insertion_scores", "map", "grid_h", "grid_w")
"""The columns that maps and curves of samples are made from."""
VALUES = ("srg", "deletion_auc", "insertion_auc", "gap_srg_center", "random_p", "srg_logit")
"""Columns of a sample's rows that the page lists."""

Columns = dict[str, list[Any]]
"""Name → values of all rows, ordered by sample, setting and method."""


def sample_entries(
    records: pd.DataFrame, settings: Sequence[Setting], methods: Sequence[str], budget: int
) -> list[dict[str, Any]]:
    """One entry per sample for the page, in the order of `sample_id`.

    Args:
        records: all rows; with `DETAIL_COLUMNS` each entry may carry its maps and curves.
        settings: in the page's order.
        methods: names in the page's order.
        budget: bytes for scores, maps and curves; once they are used up, samples have scores only.

    Returns:
        Dicts with `id`, what was asked and answered, `rows` (lists: setting, method, status, own substrate, has a map,
        has curves, then `VALUES`), `range` (lowest and highest score), `grid` and `detail` (base64 or None).
    """
    place = {name: number for number, name in enumerate(methods)}
    setting_of: dict[tuple[str, str, str], int] = {setting: number for number, setting in enumerate(settings)}
    asked = zip(records["substrate"], records["target"], records["space"], strict=True)
    keys = pd.DataFrame({"sample": records["sample_id"].to_numpy(object)})
    keys["setting"], keys["method"] = [setting_of[key] for key in asked], records["method"].map(place).to_numpy()
    order = keys.sort_values(["sample", "setting", "method"], kind="stable").index.to_numpy()
    keys = keys.loc[order]
    # Lists of columns, since indexing a frame row by row is slow for a hundred thousand rows.
    columns: Columns = {str(name): records[name].to_numpy(object)[order].tolist() for name in records.columns}
    values = [_short_all(records[name].to_numpy(np.float64, na_value=np.nan)[order]) for name in VALUES]
    setting, method = keys["setting"].tolist(), keys["method"].tolist()
    budget -= ROW_BYTES * len(keys)
    starts = np.flatnonzero(~keys["sample"].duplicated().to_numpy()).tolist()
    entries = []
    for start, stop in pairwise([*starts, len(keys)]):
        rows = range(start, stop)
        entry = _about(columns, rows)
        packed, flags = None, [(False, False)] * len(rows)
        if "map" in columns and budget > 0:
            packed, flags = _pack(columns, rows, entry)
            budget -= len(packed or "")
        entry["detail"] = packed
        entry["rows"] = [
            [
                setting[row],
                method[row],
                columns["status"][row],
                int(columns["own_substrate"][row] is True),
                *map(int, has),
                *(value[row] for value in values),
            ]
            for row, has in zip(rows, flags, strict=True)
        ]
        entries.append(entry)
    return entries


def _about(columns: Columns, rows: range) -> dict[str, Any]:
    """What is the same for all rows of a sample: the first value of each column that is not null."""

    def first(name: str) -> Any:
        return next((value for value in columns[name][rows.start : rows.stop] if not _missing(value)), None)

    reference, correct = first("reference"), first("correct")
    return {
        "id": str(first("sample_id")),
        "question": str(first("question") or ""),
        "answer": first("predicted"),
        "generated": first("generated"),
        "reference": None if reference is None else ", ".join(map(str, reference)),
        "finding": first("finding"),
        "correct": None if correct is None else bool(correct),
        "p_yes": short(first("p_yes")),
        "effect": short(first("effect")),
        "ends": [short(first("s_original")), short(first("s_substrate"))],
        "reason": first("reason"),
    }


def _pack(columns: Columns, rows: range, entry: dict[str, Any]) -> tuple[str | None, list[tuple[bool, bool]]]:
    """The bytes of a sample's maps and curves, and for each row whether it has a map and curves in them."""
    curves = {row: curve for row in rows if (curve := _curves(columns, row)) is not None}
    known = np.concatenate([curve.ravel() for curve in curves.values()] or [np.zeros(0)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    entry["range"] = [short(low), short(high)]
    maps, hidden = {}, {CENTER}  # its map has no positive value and is the same for every picture
    for row in rows:
        if columns["method"][row] not in hidden and not _missing(columns["grid_h"][row]):
            values = columns["map"][row]
            if not _missing(values) and np.isfinite(values).all():
                hidden.add(columns["method"][row])
                maps[row] = np.asarray(values, np.float64)
                entry["grid"] = [int(columns[name][row]) for name in ("grid_h", "grid_w")]
    shades = {}
    if maps:
        strengths, _ = scaled_all(np.stack(list(maps.values())).reshape(-1, *entry["grid"]))
        shades = dict(zip(maps, strengths, strict=True))
    parts = []
    for row in rows:
        if row in shades:
            parts.append(_levels(shades[row], MAP_LEVELS))
        if row in curves:
            parts.append(_levels((curves[row] - low) / ((high - low) or 1), CURVE_LEVELS))
    flags = [(row in shades, row in curves) for row in rows]
    if not parts:
        return None, flags
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii"), flags


def _curves(columns: Columns, row: int) -> npt.NDArray[np.float64] | None:
    """Deletion and insertion scores [2, steps + 1]; None where a score is missing."""
    sides = [columns["deletion_scores"][row], columns["insertion_scores"][row]]
    if any(_missing(side) for side in sides):
        return None
    both = np.asarray(sides, np.float64)
    return both if np.isfinite(both).all() else None


def _levels(share: npt.NDArray[np.float64], levels: int) -> bytes:
    return np.rint(share * (levels - 1)).astype(np.uint8).tobytes()


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def short(value: Any) -> float | None:
    """A number with five significant digits, which a page can show and sort by; None where there is none."""
    return None if _missing(value) else _short_all([float(value)])[0]


def _short_all(values: npt.ArrayLike) -> list[float | None]:
    """`short` of many numbers, NaN where there is none."""
    array = np.asarray(values, np.float64)
    known = np.isfinite(array).tolist()
    return [float(f"{v:.5g}") if ok else None for v, ok in zip(array.tolist(), known, strict=True)]
