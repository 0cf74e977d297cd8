"""The torchmetrics of a whole run: a collection for every substrate and method, over all ranks."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from cxr_faith.metrics.curves import EFFECT, ColumnMean, method_metrics
from cxr_faith.metrics.functional import GAPS, MEASURED, normalize_curve
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS

SCALARS = ("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", *GAPS, *LOCALIZATION_COLUMNS)
"""Columns of the records that are averaged over the samples that have them."""

ENDS = ("s_original", "s_substrate")
CURVES = ("deletion_scores", "insertion_scores")

COLUMNS = ("substrate", "method", "status", *SCALARS, *ENDS, *CURVES)
"""Columns of the records that `MetricBoard.update` reads."""

Key = tuple[str, str]
"""(substrate, method)"""


class RowCount(ColumnMean):
    """Number of rows, whatever their status."""

    def __init__(self) -> None:
        super().__init__("ok")

    def prepare(self, values: Tensor) -> Tensor:
        """Counts False as well as True."""
        return torch.ones_like(values, dtype=torch.float64)

    def compute(self) -> Tensor:
        """Rows over all ranks, float64."""
        return self.count


class MetricBoard:
    """Means over samples and ranks for every substrate and method of a run."""

    def __init__(self, keys: Iterable[Key], steps: int) -> None:
        """Start from empty sums.

        Args:
            keys: (substrate, method) of all rows to come; the same on every rank.
            steps: number T of perturbation steps.
        """
        self._steps = steps
        self.collections: dict[Key, MetricCollection] = {}
        for key in keys:
            self.collections[key] = method_metrics(steps)
            localization = {name: ColumnMean(name) for name in LOCALIZATION_COLUMNS}
            self.collections[key].add_metrics({**localization, "samples": RowCount()})

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the records: column → value; columns left out are missing values."""
        groups: dict[Key, list[Mapping[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["substrate"], row["method"]), []).append(row)
        for key, members in groups.items():
            scalars = {name: [row.get(name) for row in members] for name in (*SCALARS, *ENDS)}
            curves = {name: [row.get(name) for row in members] for name in CURVES}
            self._add(key, [row["status"] for row in members], scalars, curves)

    def update_frame(self, frame: pd.DataFrame) -> None:
        """Add rows of the records that were read back, with the columns `COLUMNS`."""
        for (substrate, method), rows in frame.groupby(["substrate", "method"], sort=False):
            scalars = {name: rows[name].tolist() for name in (*SCALARS, *ENDS)}
            curves = {name: rows[name].tolist() for name in CURVES}
            self._add((str(substrate), str(method)), rows["status"].tolist(), scalars, curves)

    def compute(self, device: torch.device, over_ranks: bool = True) -> dict[Key, dict[str, Tensor]]:
        """Values over all ranks, NaN where no sample has one; every rank must call this, also one without samples.

        Args:
            device: where the ranks' process group can reduce.
            over_ranks: off: the values of this rank alone, and no other rank need call this.
        """
        for collection in self.collections.values():
            for metric in collection.values():
                metric.sync_on_compute = over_ranks
        with warnings.catch_warnings():
            # The oracle of a run without masks has no value, which NaN says already.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            return {key: collection.to(device).compute() for key, collection in self.collections.items()}

    def _add(
        self, key: Key, status: Sequence[str], scalars: Mapping[str, Sequence[Any]], curves: Mapping[str, Sequence[Any]]
    ) -> None:
        ok = torch.tensor([one in MEASURED for one in status])
        columns = {name: _column(values) for name, values in scalars.items()}
        ends = [columns.pop(name) for name in ENDS]
        missing = np.full(self._steps + 1, np.nan)
        for name, values in curves.items():
            scores = torch.from_numpy(np.stack([missing if one is None else np.asarray(one, float) for one in values]))
            curve = torch.where(ok[:, None], normalize_curve(scores, *ends), torch.nan)
            columns[name.replace("scores", "curve")] = curve
        columns[EFFECT] = ends[0] - ends[1]
        self.collections[key].update(ok=ok, **columns)


def _column(values: Sequence[Any]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)
