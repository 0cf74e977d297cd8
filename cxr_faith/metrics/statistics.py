"""How sure a mean is when rows come in clusters: bootstrap intervals, sign-flip tests, Holm, effect sizes.

The questions of a patient are not independent, so whole patients are resampled and flipped. Everything works on the
sums and counts of clusters, for many columns (methods x metrics) at once: a resample is a row of weights, and all means
of all resamples are one matrix product.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

RESAMPLES = 2_000
FLIPS = 10_000
"""Random sign flips; many, so that a p value still means something after Holm over hundreds of pairs of methods."""

LEVEL = 0.95
EXACT_CLUSTERS = 12
"""Up to this number of clusters the sign-flip test is exact: it takes all 2^n flips."""

FEWEST_CLUSTERS = 10
"""Fewer clusters than this get no interval."""

FEW_CLUSTERS = 30
"""With fewer clusters than this, intervals are too short, and readers are warned."""

_SEED = 20240229
_BLOCK_WEIGHTS = 2_000_000  # weights in memory at a time: 16 MB


@dataclass(frozen=True)
class Estimates:
    """One number per column, each [columns]; NaN where it does not exist.

    Attributes:
        mean: Σ sums / Σ counts.
        n: rows with a value.
        clusters: clusters with a value.
        low: lower end of the percentile interval.
        high: its upper end.
        bca_low: lower end of the bias-corrected and accelerated interval (Efron 1987).
        bca_high: its upper end.
        p: of the sign-flip test that the mean is 0, two-sided.
        d_z: mean of the cluster means over their standard deviation.
    """

    mean: Floats
    n: Floats
    clusters: Floats
    low: Floats
    high: Floats
    bca_low: Floats
    bca_high: Floats
    p: Floats
    d_z: Floats

    @classmethod
    def empty(cls, columns: int) -> Self:
        """Estimates for columns without a value: every field is NaN."""
        return cls(*(np.full(columns, np.nan) for _ in fields(cls)))


def estimate(
    values: npt.ArrayLike, clusters: npt.ArrayLike, resamples: int = RESAMPLES, flips: int = FLIPS
) -> Estimates:
    """Means with intervals and tests, clustered; the same input always gives the same result.

    Args:
        values: [rows, columns], NaN = missing. Paired differences, where a test should compare two things.
        clusters: number or name of each row's cluster [rows].
        resamples: bootstrap resamples of the clusters.
        flips: random flips of the signs of the clusters; the smallest p is about 1 / flips.
    """
    table = np.asarray(values, dtype=np.float64)
    sums, counts = cluster_sums(table, np.unique(np.asarray(clusters), return_inverse=True)[1])
    result = Estimates.empty(table.shape[1])
    # Only clusters that have a value can be drawn, so columns go together by the clusters they have.
    patterns, which = np.unique(counts > 0, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(which.ravel() == number)
        if pattern.any():
            part = _estimate(sums[np.ix_(pattern, columns)], counts[np.ix_(pattern, columns)], resamples, flips)
            for field in fields(Estimates):
                getattr(result, field.name)[columns] = getattr(part, field.name)
        else:
            result.n[columns] = result.clusters[columns] = 0
    return result


def cluster_sums(values: Floats, clusters: Ints) -> tuple[Floats, Floats]:
    """Sums and counts of the values that are not NaN, each [clusters, columns].

    Args:
        values: [rows, columns].
        clusters: 0-based number of each row's cluster [rows].
    """
    present = np.isfinite(values)
    n_clusters = int(clusters.max(initial=-1)) + 1
    sums, counts = np.zeros((n_clusters, values.shape[1])), np.zeros((n_clusters, values.shape[1]))
    np.add.at(sums, clusters, np.where(present, values, 0.0))
    np.add.at(counts, clusters, present)
    return sums, counts


def _estimate(sums: Floats, counts: Floats, resamples: int, flips: int) -> Estimates:
    n_clusters, n_columns = sums.shape
    total, n = sums.sum(0), counts.sum(0)
    mean = total / n
    low, high, bca_low, bca_high = (np.full(n_columns, np.nan) for _ in range(4))
    if n_clusters >= FEWEST_CLUSTERS:
        drawn = resampled_means(sums, counts, resamples, np.random.default_rng(_SEED))
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        jackknife = (total - sums) / (n - counts)
        bca_low, bca_high = bca_interval(drawn, mean, jackknife)
    return Estimates(
        mean=mean,
        n=n,
        clusters=np.full(n_columns, float(n_clusters)),
        low=low,
        high=high,
        bca_low=bca_low,
        bca_high=bca_high,
        p=sign_flip_p(sums, np.random.default_rng(_SEED + 1), flips),
        d_z=effect_size(sums / counts),
    )


def resampled_means(sums: Floats, counts: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Mean of every column in every resample of the clusters, Σ sums / Σ counts.

    Args:
        sums: [clusters, columns].
        counts: the same shape, nowhere 0.
        resamples: how many.
        rng: draws clusters with replacement; all columns share the draws.

    Returns:
        [resamples, columns].
    """
    n_clusters, n_columns = sums.shape
    kinds, which = np.unique(counts, axis=1, return_inverse=True)
    stacked, means = np.hstack([sums, kinds]), np.empty((resamples, n_columns))
    block = max(1, _BLOCK_WEIGHTS // n_clusters)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(n_clusters, size=(size, n_clusters)) + np.arange(size)[:, None] * n_clusters
        weights = np.bincount(drawn.ravel(), minlength=size * n_clusters).reshape(size, n_clusters)
        totals = weights.astype(np.float64) @ stacked
        means[start : start + size] = totals[:, :n_columns] / totals[:, n_columns + which.ravel()]
    return means


def bca_interval(drawn: Floats, observed: Floats, jackknife: Floats) -> tuple[Floats, Floats]:
    """Bias-corrected and accelerated bootstrap interval, Efron 1987.

    Args:
        drawn: bootstrap distribution [resamples, columns].
        observed: estimate from the data [columns].
        jackknife: estimates with one cluster left out [clusters, columns].

    Returns:
        (low, high), each [columns]; NaN where all resamples lie on one side of the estimate, or are equal.
    """
    below = ((drawn < observed).mean(0) + (drawn <= observed).mean(0)) / 2
    offset = jackknife.mean(0) - jackknife
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = ndtri(below)
        acceleration = (offset**3).sum(0) / (6 * (offset**2).sum(0) ** 1.5)
        ends = []
        for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
            shifted = bias + ndtri(tail)
            ends.append(ndtr(bias + shifted / (1 - acceleration * shifted)))
    usable = np.isfinite(ends).all(0)
    bounds = np.full((2, len(observed)), np.nan)
    for column in np.flatnonzero(usable):
        bounds[:, column] = np.quantile(drawn[:, column], [ends[0][column], ends[1][column]])
    return bounds[0], bounds[1]


def sign_flip_p(sums: Floats, rng: np.random.Generator, flips: int = FLIPS) -> Floats:
    """Two-sided p that the mean is 0, by flipping the sign of whole clusters.

    The counts do not change with the signs, so |Σ ± sums| orders the flips as the mean does. All flips are gone
    through up to `EXACT_CLUSTERS` clusters; beyond, p = (1 + hits)/(1 + flips) over random ones.

    Args:
        sums: [clusters, columns].
        rng: draws the signs; all columns share them.
        flips: number of random flips.

    Returns:
        [columns].
    """
    n_clusters = len(sums)
    # A flip that only restores the observed sum must count although it is added up in another order.
    total = sums.sum(0)
    least = np.abs(total) - 1e-9 * np.abs(sums).sum(0)
    if n_clusters <= EXACT_CLUSTERS:
        bits = (np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)) & 1
        return np.asarray((np.abs((2.0 * bits - 1) @ sums) >= least).mean(0))
    hits = np.zeros(sums.shape[1])
    block = max(1, _BLOCK_WEIGHTS // n_clusters)
    for start in range(0, flips, block):
        size = min(block, flips - start)
        kept = rng.integers(0, 2, size=(size, n_clusters), dtype=np.int8).astype(np.float64)
        hits += (np.abs(kept @ (2 * sums) - total) >= least).sum(0)
    return (1 + hits) / (1 + flips)


def effect_size(cluster_means: Floats) -> Floats:
    """Cohen's d_z, mean over standard deviation (ddof = 1) of the cluster means [clusters, columns]; [columns]."""
    if len(cluster_means) < 2:
        return np.full(cluster_means.shape[1], np.nan)
    spread = cluster_means.std(axis=0, ddof=1)
    # Equal values leave a rounding error of a deviation, not 0.
    constant = np.ptp(cluster_means, axis=0) <= 1e-12 * np.abs(cluster_means).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(constant, np.nan, cluster_means.mean(axis=0) / spread))


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's step-down adjusted p values, Holm 1979; NaN stays NaN and does not count as a test.

    Args:
        p: [tests].

    Returns:
        [tests], at most 1.
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full_like(raw, np.nan)
    order = np.argsort(raw, kind="stable")[: int(np.isfinite(raw).sum())]
    steps = raw[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
