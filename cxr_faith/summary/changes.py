"""How answers and maps change from one asking of a question to another: what stability and conditions share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.agreement import spearman
from cxr_faith.summary.columns import maps_of, numbers, rounded_mean
from cxr_faith.summary.result import Result

ANSWER_COLUMNS = ("predicted", "margin")
MAP_COLUMNS = ("gap_srg_random", "grid_h", "grid_w")
"""The columns of the records that changes are measured on, beside `map`."""


@dataclass(frozen=True)
class AnswerChange(Result):
    """How answers change from the first asking to the second."""

    n: int
    """Pairs in which both have an answer."""
    flip_rate: float | None
    """Share of the pairs whose answers differ."""
    n_margin: int
    """Pairs in which both have a margin."""
    margin_shift: float | None
    """Mean absolute change of the margin, in logits."""


@dataclass(frozen=True)
class MapChange(Result):
    """How one method's maps change from the first asking to the second."""

    method: str
    """Name of the method."""
    n: int
    """Pairs in which both have a map."""
    spearman: float | None
    """Mean rank correlation of the two maps."""
    n_gap: int
    """Pairs in which both have `gap_srg_random`."""
    gap_change: float | None
    """Mean absolute change of `gap_srg_random`."""


def answer_change(before: pd.DataFrame, after: pd.DataFrame) -> AnswerChange:
    """The change between rows that belong together; rows without an answer are left out.

    Args:
        before: `ANSWER_COLUMNS` of the first askings.
        after: those of the second ones, in the same order.
    """
    answered = before["predicted"].notna().to_numpy(bool) & after["predicted"].notna().to_numpy(bool)
    flipped = before["predicted"].to_numpy(object) != after["predicted"].to_numpy(object)
    shift = np.abs(numbers(after["margin"]) - numbers(before["margin"]))
    return AnswerChange(
        n=int(answered.sum()),
        flip_rate=rounded_mean(flipped[answered].astype(np.float64)),
        n_margin=int(np.isfinite(shift[answered]).sum()),
        margin_shift=rounded_mean(shift[answered]),
    )


def one_picture(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each row has a map of a single picture, whose grid is recorded; only such maps are compared."""
    return rows["map"].notna() & rows["grid_h"].notna()


def map_change(method: str, before: pd.DataFrame, after: pd.DataFrame) -> MapChange | None:
    """The change between one method's rows that belong together; None without rows.

    Args:
        method: name of the method.
        before: `map` and `MAP_COLUMNS` of the first askings.
        after: those of the second ones, in the same order.
    """
    if before.empty:
        return None
    change = np.abs(numbers(after["gap_srg_random"]) - numbers(before["gap_srg_random"]))
    return MapChange(
        method=method,
        n=len(before),
        spearman=rounded_mean(spearman(maps_of(before), maps_of(after))),
        n_gap=int(np.isfinite(change).sum()),
        gap_change=rounded_mean(change),
    )
