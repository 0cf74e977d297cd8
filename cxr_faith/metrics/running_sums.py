"""Means and standard errors from sums that add up over batches and ranks."""

import torch
from torch import Tensor


def present_sums(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum, sum of squares and count of the values that are not NaN along the first dimension.

    Args:
        values: `[B, ...]`.

    Returns:
        three float64 tensors `[...]`; they add up over batches and ranks.
    """
    present = ~values.isnan()
    filled = torch.where(present, values, 0).double()
    return filled.sum(0), (filled * filled).sum(0), present.sum(0).double()


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """Mean from `present_sums`; NaN without a value."""
    return total / count  # 0 / 0 is NaN


def standard_error_of(total: Tensor, square: Tensor, count: Tensor) -> Tensor:
    """Plain standard error of the mean from `present_sums`; NaN under two values.

    It takes rows as independent, which questions about one patient are not: a quick look, not an interval to report.
    """
    variance = (square - total * total / count).clamp_min(0) / (count - 1)
    return torch.where(count > 1, (variance / count).sqrt(), torch.nan)
