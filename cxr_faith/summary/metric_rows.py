"""The board of the torchmetrics, as it stands at the end of prediction, and whether the records say the same."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cxr_faith.metrics.functional import GAPS, MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.summary.summary import Summary

TOLERANCE = 1e-9
"""Sums of float64 in another order differ by less."""

COMPARED = ("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", *GAPS)
"""Means that the torchmetrics and the boards of the summary both have."""

RECORDED = ("substrate", "method", "status", "effect", *COMPARED)
"""Columns of the records that `recorded_rows` needs beside the key."""


@dataclass(frozen=True)
class MetricRow:
    """Means of one method over its samples that are ok or flat, weighted by the effect, from the torchmetrics."""

    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    method: str
    """Name of the method, baseline or control."""
    samples: int
    """Rows of the method."""
    coverage: float
    """Share of them whose status is ok or flat."""
    means: Mapping[str, float | None]
    """Mean of each column over the samples that have it; None where none has."""

    @property
    def n_ok(self) -> int:
        """Rows whose status is ok or flat."""
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


def recorded_rows(pieces: Iterable[pd.DataFrame]) -> dict[tuple[str, str], MetricRow]:
    """The same rows computed from the records, (substrate, method) → row.

    Args:
        pieces: records with the key and `RECORDED`; rows under a condition are left out.
    """
    sums, weights = defaultdict[tuple[str, str, str], float](float), defaultdict[tuple[str, str, str], float](float)
    for piece in pieces:
        plain = piece[piece["condition"].eq(NONE)].assign(ok=piece["status"].isin(MEASURED))
        for (substrate, method), mine in plain.groupby(["substrate", "method"]):
            effect = mine["effect"].astype(np.float64)
            for name in ("ok", *COMPARED):
                values = mine[name].astype(np.float64).dropna()
                heavy = effect[values.index] if name in COMPARED else 1.0 + 0.0 * values
                sums[str(substrate), str(method), name] += float((heavy * values).sum())
                weights[str(substrate), str(method), name] += float(heavy.sum())
    rows = {}
    for substrate, method in dict.fromkeys((substrate, method) for substrate, method, _ in weights):
        means = {name: _mean(sums[substrate, method, name], weights[substrate, method, name]) for name in COMPARED}
        samples = round(weights[substrate, method, "ok"])
        coverage = sums[substrate, method, "ok"] / samples
        rows[substrate, method] = MetricRow(substrate, method, samples, coverage, means)
    return rows


def _mean(total: float, weight: float) -> float | None:
    return total / weight if weight else None


def disagreements(
    rows: Sequence[MetricRow], recorded: Mapping[tuple[str, str], MetricRow], summary: Summary
) -> list[str]:
    """Where the torchmetrics differ from the records, or from their summary, by more than `TOLERANCE`.

    Args:
        rows: the torchmetrics of the whole run.
        recorded: the same means computed from the records.
        summary: the summary of the records. It averages the samples that are ok for every method, so it is compared
            where these are all samples of the method that are ok.

    Returns:
        one sentence for each difference.
    """
    boards = {board.substrate: board for board in reversed(summary.boards) if board.slice == "all"}
    differing = []
    for row in rows:
        other = recorded.get((row.substrate, row.method))
        board = boards[row.substrate].row(row.method) if row.substrate in boards else None
        if other is None or board is None or not row.samples == other.samples == board.n:
            counts = f"{other.samples if other else 0} in the records"
            differing.append(f"{row.method} under {row.substrate}: {row.samples} samples in the torchmetrics, {counts}")
            continue
        pairs: list[tuple[str, float | None, float | None]] = []
        pairs += [("coverage", row.coverage, coverage) for coverage in (other.coverage, board.coverage)]
        pairs += [(name, row.means[name], other.means[name]) for name in COMPARED]
        if board.n_common == row.n_ok:
            pairs += [(name, row.means[name], board.value(name)) for name in COMPARED]
        for name, value, expected in dict.fromkeys(pairs):
            if (value is None) != (expected is None) or abs((value or 0.0) - (expected or 0.0)) > TOLERANCE:
                where = f"{name} of {row.method} under {row.substrate}"
                differing.append(f"{where}: {value} in the torchmetrics, {expected} in the records")
    return differing
