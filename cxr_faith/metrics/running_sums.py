"""Means and standard errors from sums that add up over batches and ranks."""

import torch
from torch import Tensor


def present_sums(values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
    """Sums over the values that are not NaN along the first dimension; they add up over batches and ranks.

    Args:
        values: x, `[B, ...]`.
        weights: w, `[B]`; None: 1 each. A value whose weight is NaN is left out too.

    Returns:
        Σ w·x, Σ w, Σ (w·x)², Σ w·w·x, Σ w² and the number of values, float64 tensors `[...]`.
    """
    heavy = torch.ones_like(values) if weights is None else weights.reshape(-1, *[1] * (values.ndim - 1))
    present = ~(values.isnan() | heavy.isnan())
    x, w = torch.where(present, values, 0).double(), torch.where(present, heavy, 0).double()
    return tuple(part.sum(0) for part in (w * x, w, (w * x).square(), w * w * x, w * w, present.double()))


def mean_of(total: Tensor, weight: Tensor) -> Tensor:
    """Mean from the first two sums; NaN without a value."""
    return total / weight  # 0 / 0 is NaN


def standard_error_of(
    total: Tensor, weight: Tensor, square: Tensor, mixed: Tensor, weight_square: Tensor, count: Tensor
) -> Tensor:
    """Plain standard error of the mean from `present_sums`; NaN under two values.

    It takes rows as independent, which questions about one patient are not: a quick look, not an interval to report.
    """
    mean = mean_of(total, weight)
    residual = (square - 2 * mean * mixed + mean.square() * weight_square).clamp_min(0)
    return torch.where(count > 1, (residual * count / (count - 1)).sqrt() / weight, torch.nan)
