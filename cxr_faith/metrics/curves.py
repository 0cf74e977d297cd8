"""Running means over samples, as torchmetrics: float64 sums that add up over batches and ranks.

Every metric takes the same dictionary of columns, `metric.update(**columns)`, and picks its own, so that one call
updates the `MetricCollection` of a method (`method_metrics`). NaN values are left out. Ranks without samples contribute
nothing; without any sample the value is NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from cxr_faith.metrics.functional import BASELINES
from cxr_faith.metrics.running_sums import mean_of, present_sums, standard_error_of

_SUMS = ("total", "weight_total", "square", "mixed", "weight_square", "count")

EFFECT = "effect"
"""Column that weighs the normalized ones: an answer that hardly moves must not carry a mean."""


class ColumnMean(Metric):
    """Mean of one column over the samples that have it."""

    full_state_update = False
    is_differentiable = False
    total: Tensor
    weight_total: Tensor
    count: Tensor

    def __init__(self, column: str, shape: tuple[int, ...] = (), weight: str | None = None, **kwargs: Any) -> None:
        """Start from empty sums.

        Args:
            column: name of the column to pick from `update`.
            shape: shape of one sample's value, `()` for a scalar.
            weight: name of the column with each sample's weight; None: all weigh the same.
            **kwargs: passed on to `torchmetrics.Metric`, here and in every subclass.
        """
        super().__init__(**kwargs)
        self.column = column
        self.shape = shape
        self.weight = weight
        for state in _SUMS:
            self.add_state(state, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, **columns: Tensor) -> None:
        """Adds a batch.

        Args:
            **columns: tensors `[B, *shape]` by name; those of other metrics are ignored.

        Raises:
            ValueError: if this metric's column is missing or has another shape.
        """
        name = f"{type(self).__name__}: column '{self.column}'"
        if self.column not in columns:
            raise ValueError(f"{name} is missing, got {', '.join(columns) or 'none'}")
        values = columns[self.column]
        if values.ndim == 0 or values.shape[1:] != self.shape:
            raise ValueError(f"{name} must be [B, *{list(self.shape)}], got {list(values.shape)}")
        weights = None
        if self.weight is not None:
            if self.weight not in columns:
                raise ValueError(f"{name} needs the weights '{self.weight}', got {', '.join(columns)}")
            weights = columns[self.weight].to(self.total.device)
        sums = present_sums(self.prepare(values.to(self.total.device)), weights)
        for state, added in zip(_SUMS, sums, strict=True):
            getattr(self, state).add_(added)

    def prepare(self, values: Tensor) -> Tensor:
        """Turns the column into the values to average, NaN = left out."""
        return values

    def compute(self) -> Tensor:
        """Mean over all ranks, float64 `shape`."""
        return mean_of(self.total, self.weight_total)

    def standard_error(self) -> Tensor:
        """Plain standard error of the mean over all ranks, float64 `shape`; like `compute`, every rank must call it."""
        with self.sync_context():
            return standard_error_of(*(getattr(self, state) for state in _SUMS))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> "ColumnMean":
        """Follows a module to another device but not to another dtype.

        `module.to(torch.bfloat16)`, which Lightning's `bf16-true` does, would otherwise round the sums to 8 bits.
        """

        def move(state: Tensor) -> Tensor:
            return state.to(fn(torch.empty(0, device=state.device)).device)

        super()._apply(move, exclude_state)
        return self


class DeletionAUC(ColumnMean):
    """Mean normalized area under the deletion curve."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        """Average the column `deletion_auc`."""
        super().__init__("deletion_auc", **kwargs)


class InsertionAUC(ColumnMean):
    """Mean normalized area under the insertion curve."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        """Average the column `insertion_auc`."""
        super().__init__("insertion_auc", **kwargs)


class SymmetricRelevanceGain(ColumnMean):
    """Mean of insertion_auc - deletion_auc."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        """Average the column `srg`."""
        super().__init__("srg", **kwargs)


class DropAt(ColumnMean):
    """Mean share of the effect that is lost when the first q of the cells are removed."""

    higher_is_better = True

    def __init__(self, q: float, **kwargs: Any) -> None:
        """Average the column `drop_<percent>`.

        Args:
            q: share of the cells: 0.1, 0.2 or 0.5, as the records have it.
            **kwargs: passed on to `ColumnMean`.
        """
        super().__init__(f"drop_{round(100 * q)}", **kwargs)


class BaselineGap(ColumnMean):
    """Mean paired gap to a baseline, positive = better than the baseline."""

    higher_is_better = True

    def __init__(self, metric: str, baseline: str, **kwargs: Any) -> None:
        """Average the column `gap_<metric>_<baseline>`.

        Args:
            metric: `deletion`, `insertion` or `srg`.
            baseline: `random` or `center`.
            **kwargs: passed on to `ColumnMean`.
        """
        super().__init__(f"gap_{metric}_{baseline}", **kwargs)


class Coverage(ColumnMean):
    """Share of the samples with normalized scores (status `ok` or `flat`); its column is the bool `ok`."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        """Average the column `ok`."""
        super().__init__("ok", **kwargs)

    def prepare(self, values: Tensor) -> Tensor:
        """Turns True and False into 1 and 0."""
        return values.double()


class MeanCurve(ColumnMean):
    """Mean normalized curve over the samples that have every point of it."""

    def __init__(self, column: str, steps: int, **kwargs: Any) -> None:
        """Average one of the two curves.

        Args:
            column: `deletion_curve` or `insertion_curve`.
            steps: number T of perturbation steps; a curve has T + 1 points.
            **kwargs: passed on to `ColumnMean`.
        """
        super().__init__(column, shape=(steps + 1,), **kwargs)

    def prepare(self, values: Tensor) -> Tensor:
        """Leaves out the whole curve where a point is missing: every point must average the same samples."""
        return values.masked_fill(values.isnan().any(-1, keepdim=True), torch.nan)


def method_metrics(steps: int) -> MetricCollection:
    """The metrics of one method, keyed as the record columns; normalized values are weighted by the effect.

    Args:
        steps: number T of perturbation steps.

    Returns:
        a collection to update with `deletion_auc`, `insertion_auc`, `srg`, `drop_10`, `drop_20`, `drop_50`, the six
        `gap_*` and `effect` (all `[B]`), `ok` (bool `[B]`: the sample has normalized scores), `deletion_curve` and
        `insertion_curve` (normalized, `[B, T + 1]`).
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "deletion_auc": DeletionAUC(weight=EFFECT),
        "insertion_auc": InsertionAUC(weight=EFFECT),
        "srg": SymmetricRelevanceGain(weight=EFFECT),
        **{f"drop_{round(100 * q)}": DropAt(q, weight=EFFECT) for q in (0.1, 0.2, 0.5)},
        **{
            f"gap_{metric}_{baseline}": BaselineGap(metric, baseline, weight=EFFECT)
            for baseline in BASELINES
            for metric in ("deletion", "insertion", "srg")
        },
        "coverage": Coverage(),
        "deletion_curve": MeanCurve("deletion_curve", steps, weight=EFFECT),
        "insertion_curve": MeanCurve("insertion_curve", steps, weight=EFFECT),
    }
    # Compute groups would join metrics whose states agree after the first batch, for instance all that are still zero
    # because no sample of it was ok, and from then on feed only the first of them.
    return MetricCollection(metrics, compute_groups=False)
