"""The board of the torchmetrics, as it stands at the end of prediction, and whether the records say the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cxr_faith.metrics.functional import GAPS
from cxr_faith.summary.summary import Summary

TOLERANCE = 1e-9
"""Sums of float64 in another order differ by less."""

COMPARED = ("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", *GAPS)
"""Means that the torchmetrics and the boards of the summary both have."""


@dataclass(frozen=True)
class MetricRow:
    """Means of one method over its samples that are ok, from the torchmetrics over all ranks."""

    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    method: str
    """Name of the method, baseline or control."""
    samples: int
    """Rows of the method."""
    coverage: float
    """Share of them whose status is ok."""
    means: Mapping[str, float | None]
    """Mean of each column over the samples that are ok and have it; None where none has."""

    @property
    def n_ok(self) -> int:
        """Rows whose status is ok."""
        return round(self.coverage * self.samples)

    def to_dict(self) -> dict[str, Any]:
        """One flat row of `metrics.json`."""
        named = {"substrate": self.substrate, "method": self.method, "samples": self.samples}
        return {**named, "coverage": self.coverage, **self.means}


def metric_rows(values: Mapping[tuple[str, str], Mapping[str, Tensor]]) -> list[MetricRow]:
    """Rows of the methods that have samples, in the order of the torchmetrics.

    Args:
        values: (substrate, method) → name → value, as `MetricBoard.compute` gives them.
    """
    rows = []
    for (substrate, method), named in values.items():
        scalars = {name: float(value) for name, value in named.items() if value.ndim == 0}
        samples, coverage = int(scalars.pop("samples")), scalars.pop("coverage")
        if samples:
            means = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
            rows.append(MetricRow(substrate, method, samples, coverage, means))
    return rows


def disagreements(rows: Sequence[MetricRow], summary: Summary) -> list[str]:
    """Where the torchmetrics and the summary of the records differ by more than `TOLERANCE`, one sentence each.

    Coverage is always compared, means where both average the same samples: the summary averages those that are ok for
    every method.

    Args:
        rows: the torchmetrics of the whole run.
        summary: the summary of the same run's records.
    """
    boards = {board.substrate: board for board in reversed(summary.boards) if board.slice == "all"}
    differing = []
    for row in rows:
        other = boards[row.substrate].row(row.method) if row.substrate in boards else None
        if other is None or other.n != row.samples:
            where = f"{row.method} under {row.substrate}"
            differing.append(
                f"{where}: {row.samples} samples in the torchmetrics, {other.n if other else 0} in the records"
            )
            continue
        pairs: list[tuple[str, float | None, float | None]] = [("coverage", row.coverage, other.coverage)]
        if other.n_common == row.n_ok:
            pairs += [(name, row.means[name], other.value(name)) for name in COMPARED]
        for name, value, expected in pairs:
            if (value is None) != (expected is None) or abs((value or 0.0) - (expected or 0.0)) > TOLERANCE:
                where = f"{name} of {row.method} under {row.substrate}"
                differing.append(f"{where}: {value} in the torchmetrics, {expected} in the records")
    return differing
