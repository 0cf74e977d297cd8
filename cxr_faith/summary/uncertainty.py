"""How sure are the maps, and are the unsure ones less faithful?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.summary.columns import numbers, rank_correlation, rounded, rounded_mean
from cxr_faith.summary.result import Result

COLUMNS = ("status", "srg", "stable_share", "patient_id", "image_id")
"""The columns of the records that this panel reads."""

_FEWEST = 4
"""Patients that an interval of a correlation needs: with three its error is infinite."""


@dataclass(frozen=True)
class Uncertainty(Result):
    """One method's maps over copies of their pictures, or under other seeds."""

    method: str
    """Name of the method."""
    n: int
    """Maps whose spread was measured."""
    stable_share: float | None
    """Mean share of the cells whose rank is stable (`metrics.uncertainty`)."""
    n_srg: int
    """Of them, maps with an `srg` under the first substrate."""
    n_patients: int
    """Their patients."""
    with_srg: float | None
    """Spearman's correlation over these maps between the share of stable cells and `srg`; above 0: unsure maps are less
    faithful."""
    low: float | None
    """Lower end of its 95 % interval (Bonett & Wright 2000), with patients as observations."""
    high: float | None
    """Upper end."""


def uncertainty_panel(first: pd.DataFrame, methods: Sequence[str]) -> tuple[Uncertainty, ...]:
    """One entry for each method with measured maps; empty where nothing was measured.

    Args:
        first: records of the first setting with `COLUMNS`, condition "none".
        methods: the order in which methods are listed.
    """
    return tuple(_entries(first[first["stable_share"].notna()], methods))


def _entries(rows: pd.DataFrame, methods: Sequence[str]) -> Iterator[Uncertainty]:
    for name in methods:
        mine = rows[rows["method"].eq(name)]
        if mine.empty:
            continue
        scored = mine[mine["status"].isin(MEASURED) & mine["srg"].notna()]
        patients = int(scored["patient_id"].fillna(scored["image_id"]).nunique())
        correlation = rank_correlation(numbers(scored["stable_share"]), numbers(scored["srg"]))
        mean = rounded_mean(numbers(mine["stable_share"]))
        yield Uncertainty(name, len(mine), mean, len(scored), patients, correlation, *_ends(correlation, patients))


def _ends(correlation: float | None, patients: int) -> tuple[float | None, float | None]:
    """The interval of Spearman's correlation: Fisher's z, with the standard error √((1 + ρ²/2) / (n - 3))."""
    if correlation is None or patients < _FEWEST or abs(correlation) >= 1:
        return None, None
    half = 1.959964 * math.sqrt((1 + correlation**2 / 2) / (patients - 3))
    low, high = (math.tanh(math.atanh(correlation) + sign * half) for sign in (-1, 1))
    return rounded(low), rounded(high)
