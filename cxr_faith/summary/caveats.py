"""What maps say against themselves: that nothing reads what they show, or that they do not add up to the effect."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxr_faith.metrics.functional import LARGE_RESIDUAL
from cxr_faith.records.controls import is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.columns import median, numbers, rounded
from cxr_faith.summary.parts import by_method
from cxr_faith.summary.result import Result

COLUMNS = ("caution", "completeness_residual")
"""The columns of the records that this panel reads."""

OFTEN = 0.1
"""Share of maps with a large residual from which a method has a caveat."""


@dataclass(frozen=True)
class Caveat(Result):
    """What the maps of one method say about themselves."""

    method: str
    """Name of the method."""
    n: int
    """Maps."""
    caution: str | None
    """What most of the maps that carry a caution say; None if no map does."""
    n_cautions: int
    """Maps that carry a caution."""
    n_residuals: int
    """Maps that have a completeness residual."""
    residual: float | None
    """Median completeness residual: |sum of the map - effect| as a share of the effect."""
    residual_above: float | None
    """Share of the maps with a residual above `LARGE_RESIDUAL`."""

    @property
    def sentence(self) -> str | None:
        """What a reader should know before the method's numbers; None where there is nothing."""
        said = []
        if self.caution is not None:
            said.append(f"{self.caution} ({self.n_cautions} of {self.n} maps)")
        if self.residual_above is not None and self.residual_above >= OFTEN:
            said.append(
                f"completeness residual above {LARGE_RESIDUAL} in {self.residual_above:.0%} of {self.n_residuals} maps "
                f"(median {self.residual:.2f}), so they do not add up to the effect"
            )
        return f"{self.method}: {'; '.join(said)}." if said else None


def caveats_panel(parts: Iterable[pd.DataFrame], methods: Sequence[str]) -> tuple[Caveat, ...]:
    """One entry for each method whose maps carry a caution or a completeness residual.

    Args:
        parts: records of the first setting, condition "none", some methods after the others: maps do not depend on the
            substrate that scores them.
        methods: the order in which methods are listed.
    """
    real = [name for name in methods if not is_control(name)]
    entries = (_caveat(name, rows) for name, rows in by_method(parts, real))
    return tuple(entry for entry in entries if entry.n_cautions or entry.n_residuals)


def _caveat(method: str, rows: pd.DataFrame) -> Caveat:
    said, residuals = rows["caution"].dropna(), numbers(rows["completeness_residual"].dropna())
    residuals = residuals[np.isfinite(residuals)]
    middle = median(residuals)
    return Caveat(
        method=method,
        n=len(rows),
        caution=None if said.empty else str(said.mode().iloc[0]),
        n_cautions=len(said),
        n_residuals=len(residuals),
        residual=None if middle is None else rounded(middle),
        residual_above=rounded(float((residuals > LARGE_RESIDUAL).mean())) if len(residuals) else None,
    )


def with_caveats(boards: Sequence[Board], panel: Sequence[Caveat]) -> tuple[Board, ...]:
    """The boards with the sentences of the caveats beside the methods' rows."""
    said = {entry.method: entry.sentence for entry in panel}
    return tuple(
        replace(board, rows=tuple(replace(row, caveat=said.get(row.method)) for row in board.rows)) for board in boards
    )
