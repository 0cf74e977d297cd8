"""Difference of the means of two groups of rows, whose clusters may be in one group or in both."""

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.statistics import cluster_sums

Floats = npt.NDArray[np.float64]


def contrast(
    values: Floats,
    clusters: npt.NDArray[np.intp],
    weights: Floats,
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
) -> Floats:
    """One value for each cluster, whose mean is the difference of the groups' means and whose spread is its error.

    A group's mean is a ratio of sums, Σ weight · value / Σ weight. A cluster's value is n times its share in the
    difference of the two ratios to first order (its influence; Efron 1982), plus the difference. Where clusters are in
    one group only this is the unpaired comparison, where each is in both the paired one, and any mixture between. Each
    group's part has the factor √(m / (m − 1)) of a variance over its m clusters.

    Args:
        values: [rows], NaN = missing.
        clusters: number of each row's cluster, [rows].
        weights: positive, [rows].
        first: rows of the first group, [rows].
        second: rows of the second group, [rows]; no row is in both.

    Returns:
        [clusters], NaN for clusters without a value in either group; all NaN where a group has fewer than two clusters.
    """
    mean, part, inside = _influence(np.where(first, values, np.nan), clusters, weights)
    other_mean, other_part, other_inside = _influence(np.where(second, values, np.nan), clusters, weights)
    taken = inside | other_inside
    result = (mean - other_mean) + taken.sum() * (part - other_part)
    enough = min(inside.sum(), other_inside.sum()) > 1
    return np.asarray(np.where(taken & enough, result, np.nan))


def _influence(
    values: Floats, clusters: npt.NDArray[np.intp], weights: Floats
) -> tuple[float, Floats, npt.NDArray[np.bool_]]:
    """Mean of a group, each cluster's part in its error [clusters], and which clusters have a value."""
    sums, totals = (part[:, 0] for part in cluster_sums(values[:, None], clusters, weights[:, None]))
    inside = totals > 0
    count, total = max(int(inside.sum()), 2), totals.sum() or 1.0
    mean = float(sums.sum() / total)
    return mean, np.sqrt(count / (count - 1)) * (sums - mean * totals) / total, inside
