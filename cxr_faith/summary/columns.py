"""Columns of the records as arrays: numbers and maps, their means and rank correlations as the summary writes them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

DIGITS = 10
"""Significant digits of most numbers: matrix products round their last digits differently at other thread counts."""

FEWEST = 3
"""Points that a rank correlation needs: that of two points is always 1 or -1."""


def numbers(column: "pd.Series[Any]") -> Floats:
    """A column as float64, null and None as NaN, false and true as 0 and 1."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":  # no object for each value
        return column.to_numpy(np.float64)
    return column.astype(object).where(column.notna(), np.nan).to_numpy(np.float64)


def maps_of(rows: pd.DataFrame) -> Floats:
    """Maps [rows, grid_h, grid_w] of records that all have one, of one grid."""
    grid = (int(rows["grid_h"].iloc[0]), int(rows["grid_w"].iloc[0]))
    return np.stack(rows["map"].to_list()).astype(np.float64).reshape(-1, *grid)


def mean(values: Floats) -> float | None:
    """Mean of the values that are not NaN; None if there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def median(values: Floats) -> float | None:
    """Median of the values that are not NaN; None if there are none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def weighted_mean(values: Floats, weights: Floats) -> float | None:
    """Σ weight · value / Σ weight over the values that are not NaN; None if there are none."""
    known = np.isfinite(values)
    return float(weights[known] @ values[known] / weights[known].sum()) if known.any() else None


def rounded(value: float) -> float | None:
    """A number with `DIGITS` significant digits; None for NaN."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def rounded_mean(values: Floats) -> float | None:
    """Mean of the values that are not NaN, rounded; None if there are none."""
    value = mean(values)
    return None if value is None else rounded(value)


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's correlation of the pairs without NaN; None for fewer than three, or where one side is constant."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return rounded(spearmanr(a, b).statistic)
