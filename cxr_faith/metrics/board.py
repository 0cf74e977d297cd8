"""The torchmetrics of a whole run: a collection for every substrate and method, over all ranks."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from cxr_faith.metrics.curves import ColumnMean, method_metrics
from cxr_faith.metrics.functional import normalize_curve
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS

GAPS = tuple(f"gap_{name}_{to}" for to in ("random", "center") for name in ("deletion", "insertion", "srg"))

SCALARS = ("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", *GAPS, *LOCALIZATION_COLUMNS)
"""Columns of the records that are averaged over the samples that have them."""

ENDS = ("s_original", "s_substrate")
CURVES = ("deletion_scores", "insertion_scores")

COLUMNS = ("substrate", "method", "status", *SCALARS, *ENDS, *CURVES)
"""Columns of the records that `MetricBoard.update` reads."""

Key = tuple[str, str]
"""(substrate, method)"""


class MetricBoard:
    """Means over samples and ranks for every substrate and method of a run."""

    def __init__(self, keys: Iterable[Key], steps: int) -> None:
        """Start from empty sums.

        Args:
            keys: (substrate, method) of all rows that there will be; the same on every rank.
            steps: number T of perturbation steps.
        """
        self._steps = steps
        self.collections: dict[Key, MetricCollection] = {}
        for key in keys:
            self.collections[key] = method_metrics(steps)
            self.collections[key].add_metrics({name: ColumnMean(name) for name in LOCALIZATION_COLUMNS})

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the records; columns left out are missing values."""
        groups: dict[Key, list[Mapping[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["substrate"], row["method"]), []).append(row)
        missing = [float("nan")] * (self._steps + 1)
        for key, members in groups.items():
            ok = torch.tensor([row["status"] == "ok" for row in members])
            columns = {name: _column(members, name) for name in SCALARS}
            ends = [_column(members, name) for name in ENDS]
            for name in CURVES:
                scores = torch.tensor([_or(row.get(name), missing) for row in members], dtype=torch.float64)
                curve = torch.where(ok[:, None], normalize_curve(scores, *ends), torch.nan)
                columns[name.replace("scores", "curve")] = curve
            self.collections[key].update(ok=ok, **columns)

    def compute(self, device: torch.device) -> dict[Key, dict[str, Tensor]]:
        """Values over all ranks, NaN where no sample has one; a call for every rank, also for one without samples.

        Args:
            device: where the ranks' process group can reduce.
        """
        with warnings.catch_warnings():
            # The oracle of a run without masks has no value, which NaN says already.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            return {key: collection.to(device).compute() for key, collection in self.collections.items()}


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Tensor:
    return torch.tensor([_or(row.get(name), float("nan")) for row in rows], dtype=torch.float64)


def _or(value: Any, missing: Any) -> Any:
    return missing if value is None else value
