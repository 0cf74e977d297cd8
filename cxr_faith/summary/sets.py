"""Methods that give a set of cells: is the set small, does removing it change the answer, does it alone keep it?"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxr_faith.summary.columns import numbers, rounded_mean
from cxr_faith.summary.result import Result

COLUMNS = ("set_size", "set_removal_flips", "set_keeps", "verified")
"""The columns of the records that this panel reads."""
SCORED = ("set_removal_flips", "set_keeps")
"""The rows with a value in one of these columns are read."""


@dataclass(frozen=True)
class Sets(Result):
    """The sets of one method under one substrate."""

    method: str
    """Name of the method."""
    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    n: int
    """Samples with a set that was scored."""
    size: float | None
    """Mean number of cells in a set."""
    removal_flips: float | None
    """Share of the samples whose answer changes when the set is removed."""
    keeps: float | None
    """Share of the samples whose answer stands when the set alone is kept."""


def sets_panel(records: pd.DataFrame, methods: Sequence[str]) -> tuple[Sets, ...]:
    """One entry for each method and substrate with sets.

    Args:
        records: as `read_records` gives them, condition "none".
        methods: the order in which methods are listed.
    """
    scored = records[records[list(SCORED)].notna().any(axis=1)]
    groups = {(str(m), str(s)): rows for (m, s), rows in scored.groupby(["method", "substrate"], sort=True)}
    return tuple(
        Sets(
            method=method,
            substrate=substrate,
            n=len(rows),
            size=rounded_mean(numbers(rows["set_size"])),
            removal_flips=rounded_mean(numbers(rows["set_removal_flips"])),
            keeps=rounded_mean(numbers(rows["set_keeps"])),
        )
        for (method, substrate), rows in sorted(groups.items(), key=lambda one: methods.index(one[0][0]))
    )
