"""A method beside its baselines: paired gaps, the mean of the random orders, and a test against them.

Pure functions on float64 tensors. Every standard deviation is the sample one (ddof = 1): the orders are a sample.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cxr_faith.metrics.functional import BASELINES, ENDPOINT_COLUMNS, MC_ERROR_COLUMNS

_SIGNS = (("deletion", "deletion_auc", -1), ("insertion", "insertion_auc", 1), ("srg", "srg", 1))


def baseline_gaps(
    method: Mapping[str, Tensor], random: Mapping[str, Tensor] | None, center: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Paired gaps of a method to the random orders and to the center map; positive = the method is better.

    `gap_deletion = baseline - method` (a lower deletion_auc is better); `gap_insertion` and `gap_srg` are
    `method - baseline`.

    Args:
        method: its `deletion_auc`, `insertion_auc` and `srg`, each `[B]`.
        random: the same columns of the random baseline (`random_summary`), or None for the random rows themselves.
        center: the same columns of the center map, or None for the center rows themselves.

    Returns:
        `gap_{deletion,insertion,srg}_{random,center}`, float64 `[B]`; NaN where either side is NaN or None.
    """
    gaps: dict[str, Tensor] = {}
    for name, baseline in zip(BASELINES, (random, center), strict=True):
        for metric, column, sign in _SIGNS:
            own = method[column].double()
            missing = torch.full_like(own, torch.nan)
            gaps[f"gap_{metric}_{name}"] = missing if baseline is None else sign * (own - baseline[column])
    return gaps


def random_summary(per_order: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of the random baseline from those of its R orders, in antithetic pairs (rows 2i and 2i + 1).

    Means are taken over the pair means, so that the srg of the baseline is exactly zero. The Monte-Carlo error is the
    standard deviation of the R/2 pair means over sqrt(R/2): the orders of a pair are not independent.

    Args:
        per_order: columns of `curve_scalars`, each `[B, R]`.

    Returns:
        float64 `[B]`: the mean of every column; its standard deviation over the orders as `*_std`, except for the end
        points, which all orders share; `*_mc_error` of deletion_auc, insertion_auc and srg (NaN for a single pair).

    Raises:
        ValueError: if a column does not hold an even number of orders.
    """
    summary: dict[str, Tensor] = {}
    for name, values in per_order.items():
        if values.ndim != 2 or values.shape[1] == 0 or values.shape[1] % 2:
            raise ValueError(f"{name} must be [B, R] with an even number R of orders, got {list(values.shape)}")
        if name in ENDPOINT_COLUMNS:
            summary[name] = values[:, 0].double()
            continue
        pair_means = values.double().reshape(len(values), -1, 2).mean(-1)
        summary[name] = pair_means.mean(-1)
        summary[f"{name}_std"] = _sample_std(values.double())
        if name in MC_ERROR_COLUMNS:
            summary[f"{name}_mc_error"] = _sample_std(pair_means) / pair_means.shape[-1] ** 0.5
    return summary


def random_test(srg: Tensor, srg_random: Tensor) -> tuple[Tensor, Tensor]:
    """Where a method's srg stands among those of the random orders of the same picture.

    Args:
        srg: the method's srg `[B]`.
        srg_random: srg of every random order `[B, R]`.

    Returns:
        `random_z = srg / sd` and `random_p = (1 + #{srg_random >= srg}) / (R + 1)`, float64 `[B]`; both NaN where a
        value is missing or all random orders score the same (sd = 0: there is nothing to compare with).
    """
    own, orders = srg.double(), srg_random.double()
    # Equal values, not `std == 0`: the mean of equal numbers is rounded and leaves a deviation of 1e-17.
    comparable = torch.isfinite(own) & torch.isfinite(orders).all(-1) & (orders.amax(-1) > orders.amin(-1))
    z = own / _sample_std(orders)
    p = (1 + (orders >= own[:, None]).sum(-1)).double() / (orders.shape[-1] + 1)
    return torch.where(comparable, z, torch.nan), torch.where(comparable, p, torch.nan)


def _sample_std(values: Tensor) -> Tensor:
    if values.shape[-1] < 2:
        return torch.full_like(values[..., 0], torch.nan)
    return values.std(-1, correction=1)
