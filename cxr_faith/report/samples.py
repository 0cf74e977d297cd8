"""What the page shows of single samples: which ones are worth a look, and their maps and curves in few bytes.

A sample's detail is one string of bytes, deflated and base64: for each of its rows a map of 64 levels on its own scale
(the first row of a method only) and both curves in 256 levels between the sample's lowest and highest score.
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from cxr_faith.report.figures import scaled

CONTROLS = ("random", "center", "random_map", "edges", "oracle")
"""Baselines and controls: no explanation of anybody's, so they do not make a sample a good or a bad one."""

GALLERY_SIZE = 6
MAP_LEVELS, CURVE_LEVELS = 64, 256

COLUMNS = (
    *("image_id", "question", "reference", "predicted", "generated", "kind", "finding", "present", "correct", "status"),
    *("reason", "p_yes", "margin", "effect", "s_original", "s_substrate", "own_substrate"),
    *("deletion_auc", "insertion_auc", "srg", "srg_logit", "gap_srg_random", "gap_srg_center", "random_p"),
)
DETAIL_COLUMNS = ("k", "deletion_scores", "insertion_scores", "map", "grid_h", "grid_w")
VALUES = ("srg", "deletion_auc", "insertion_auc", "gap_srg_center", "random_p", "srg_logit")
"""Columns of a sample's rows that the page lists."""


def is_control(method: str) -> bool:
    """A baseline, a control, or a control that is made from another method's maps (`name/blurred`)."""
    return method in CONTROLS or "/" in method


def gallery(records: pd.DataFrame, size: int = GALLERY_SIZE) -> dict[str, list[str]]:
    """Samples worth a look, by kind, most telling first.

    best and worst: mean srg over the methods that are no control; degenerate: samples without enough effect to divide
    by (degenerate or inverted), smallest first; disagreeing: lowest mean rank correlation between the methods' maps.

    Args:
        records: one setting's rows, with `method, status, srg, effect, map`.
        size: samples of each kind.
    """
    real = records[~records["method"].map(is_control)]
    if real.empty:
        real = records
    srg = real[real["status"].eq("ok")].groupby("sample_id")["srg"].mean().dropna().sort_values(kind="stable")
    weak = real[real["status"].isin(("degenerate", "inverted"))].groupby("sample_id")["effect"].first()
    agreement = pd.Series(
        {str(name): _agreement(maps.tolist()) for name, maps in real[real["map"].notna()].groupby("sample_id")["map"]},
        dtype=np.float64,
    )
    found = {
        "best": srg.index[::-1][:size],
        "worst": srg.index[: min(size, max(0, len(srg) - size))],
        "degenerate": weak.abs().sort_values(kind="stable").index[:size],
        "disagreeing": agreement.dropna().sort_values(kind="stable").index[:size],
    }
    return {kind: [str(name) for name in names] for kind, names in found.items()}


def _agreement(maps: Sequence[npt.ArrayLike]) -> float:
    """Mean Spearman correlation over all pairs of maps; NaN for fewer than two maps with contrast."""
    ranks = rankdata(np.stack([np.asarray(values, np.float64) for values in maps]), axis=1)
    ranks = ranks[ranks.std(axis=1) > 0]
    if len(ranks) < 2:
        return float("nan")
    pairs = np.corrcoef(ranks)[np.triu_indices(len(ranks), 1)]
    return float(pairs.mean())


def sample_entries(
    records: pd.DataFrame, settings: Sequence[tuple[str, str, str]], methods: Sequence[str], budget: int
) -> list[dict[str, Any]]:
    """One entry per sample for the page, in the order of `sample_id`.

    Args:
        records: all rows; with `DETAIL_COLUMNS` each entry may carry its maps and curves.
        settings: (substrate, target, space) in the page's order.
        methods: names in the page's order.
        budget: bytes of base64 for maps and curves; samples after that have scores only.

    Returns:
        Dicts with `id`, what was asked and answered, `rows` (lists: setting, method, status, own substrate, has a map,
        has curves, then `VALUES`), `range` (lowest and highest score), `grid` and `detail` (base64 or None).
    """
    place = {name: number for number, name in enumerate(methods)}
    setting_of = {setting: number for number, setting in enumerate(settings)}
    detailed = "map" in records.columns
    entries = []
    columns = {str(name): records[name].tolist() for name in records.columns}
    for sample_id, numbers in sorted(records.groupby("sample_id").indices.items()):
        ordered = sorted(
            ({name: values[number] for name, values in columns.items()} for number in np.asarray(numbers).tolist()),
            key=lambda row: (setting_of[row["substrate"], row["target"], row["space"]], place[row["method"]]),
        )
        entry = _about(str(sample_id), ordered)
        packed, flags = _pack(ordered, entry) if detailed and budget > 0 else (None, [(False, False)] * len(ordered))
        budget -= len(packed or "")
        entry["detail"] = packed
        entry["rows"] = [
            [
                setting_of[row["substrate"], row["target"], row["space"]],
                place[row["method"]],
                row["status"],
                int(row["own_substrate"] is True),
                *(int(flag) for flag in has),
                *(short(row[name]) for name in VALUES),
            ]
            for row, has in zip(ordered, flags, strict=True)
        ]
        entries.append(entry)
    return entries


def _about(sample_id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same for all rows of a sample: the first value that is not null."""

    def first(name: str) -> Any:
        return next((row[name] for row in rows if not _missing(row[name])), None)

    reference = first("reference")
    reason = first("reason")
    return {
        "id": sample_id,
        "question": str(first("question") or ""),
        "answer": first("predicted"),
        "generated": first("generated"),
        "reference": None if reference is None else ", ".join(map(str, reference)),
        "finding": first("finding"),
        "correct": None if first("correct") is None else bool(first("correct")),
        "p_yes": short(first("p_yes")),
        "effect": short(first("effect")),
        "ends": [short(first("s_original")), short(first("s_substrate"))],
        "reason": reason,
    }


def _pack(rows: Sequence[Mapping[str, Any]], entry: dict[str, Any]) -> tuple[str | None, list[tuple[bool, bool]]]:
    """The bytes of a sample's maps and curves, and for each row whether it has a map and curves in them."""
    curves = [_curves(row) for row in rows]
    known = np.concatenate([curve.ravel() for curve in curves if curve is not None] or [np.zeros(0)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    entry["range"] = [short(low), short(high)]
    flags, parts, hidden = [], [], {"center"}  # it has no positive value, and is the same for every picture
    for row, curve in zip(rows, curves, strict=True):
        values = None if row["method"] in hidden or _missing(row["map"]) else np.asarray(row["map"], np.float64)
        has_map = values is not None and bool(np.isfinite(values).all()) and not _missing(row["grid_h"])
        if has_map and values is not None:
            grid = (int(row["grid_h"]), int(row["grid_w"]))
            entry["grid"] = list(grid)
            hidden.add(row["method"])
            parts.append(_levels(scaled(values.reshape(grid))[0], MAP_LEVELS))
        if curve is not None:
            parts.append(_levels((curve - low) / ((high - low) or 1), CURVE_LEVELS))
        flags.append((has_map, curve is not None))
    if not parts:
        return None, flags
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii"), flags


def _curves(row: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """Deletion and insertion scores [2, steps + 1]; None where a score is missing."""
    sides = [row["deletion_scores"], row["insertion_scores"]]
    if any(side is None or _missing(side) for side in sides):
        return None
    both = np.array([np.asarray(side, np.float64) for side in sides])
    return both if np.isfinite(both).all() else None


def _levels(share: npt.NDArray[np.float64], levels: int) -> bytes:
    return np.rint(share * (levels - 1)).astype(np.uint8).tobytes()


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def short(value: Any) -> float | None:
    """A number with five significant digits, which a page can show and sort by; None where there is none."""
    if _missing(value) or not np.isfinite(value):
        return None
    return float(f"{float(value):.5g}")
