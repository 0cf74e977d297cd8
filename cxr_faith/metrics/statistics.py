"""How sure a mean is when rows come in clusters: bootstrap intervals and tests, sign flips, Holm, effect sizes.

The questions of a patient are not independent, so whole patients are resampled and flipped. Rows may have weights: a
mean is Σ weight · value / Σ weight. Everything works on the sums of clusters, for many columns (methods x metrics) at
once; see `metrics.bootstrap`.

More than `BLOCKS` clusters are resampled 2,000 times for p as well as for the intervals. Where that p is below
`RESOLVED`, and so rests on a few resamples, it comes from `TESTS` resamples of `BLOCKS` blocks of clusters, dealt at
random (random groups; Wolter 2007, chapter 2): these cost the same for any number of clusters. Blocks have their signs
flipped, too: where the clusters are distributed symmetrically, sums of clusters are.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.bootstrap import (
    LEVEL,
    bca_interval,
    bootstrap_t_interval,
    distinct_columns,
    draw,
    jackknife_error,
    jackknife_means,
    percentile_interval,
)

__all__ = ["LEVEL", "Estimates", "cluster_sums", "effect_size", "estimate", "holm", "sign_flip_p"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

RESAMPLES = 2_000
"""Resamples that an interval is taken from."""
TESTS = 10_000
"""Resamples that p is taken from; many, so that p still means something after Holm over hundreds of pairs."""
FLIPS = 10_000
"""Random sign flips."""

EXACT_CLUSTERS = 12
"""Up to this number of clusters the sign-flip test is exact: it takes all 2^n flips."""

FEWEST_CLUSTERS = 10
"""Fewer clusters than this get no interval, and p is that of the sign flips."""

FEW_CLUSTERS = 30
"""With fewer clusters than this, intervals are too short, and readers are warned."""

BLOCKS = 2_000
"""Blocks of clusters that small p, and sign flips, of more clusters than this are taken from. With 2,000 blocks the
standard error of a resample is off by 1/sqrt(2 · 2,000) = 1.6 %."""

RESOLVED = 0.01
"""Least p that 2,000 resamples tell: ten of them lie beyond the observed mean."""

_SEED = 20240229
_BLOCK_WEIGHTS = 2_000_000  # weights in memory at a time: 16 MB
_KEPT_SIGNS = BLOCKS * FLIPS  # bytes: more signs than that are drawn again for each board


@dataclass(frozen=True)
class Estimates:
    """One number per column, each [columns]; NaN where it does not exist.

    Attributes:
        mean: Σ weight · value / Σ weight.
        n: rows with a value.
        clusters: clusters with a value.
        t_low: lower end of the bootstrap-t interval.
        t_high: its upper end.
        low: lower end of the percentile interval.
        high: its upper end.
        bca_low: lower end of the bias-corrected and accelerated interval (Efron 1987).
        bca_high: its upper end.
        p: two-sided p that the mean is 0, from the bootstrap-t under that hypothesis; with fewer clusters than an
            interval needs, `p_sign_flip`.
        p_sign_flip: two-sided p that the mean is 0, by sign flips, which assume a symmetric distribution.
        d_z: mean of the cluster means over their standard deviation.
    """

    mean: Floats
    n: Floats
    clusters: Floats
    t_low: Floats
    t_high: Floats
    low: Floats
    high: Floats
    bca_low: Floats
    bca_high: Floats
    p: Floats
    p_sign_flip: Floats
    d_z: Floats

    @classmethod
    def empty(cls, columns: int) -> Self:
        """Estimates for columns without a value: every field is NaN."""
        return cls(*(np.full(columns, np.nan) for _ in fields(cls)))


def estimate(
    values: npt.ArrayLike, clusters: npt.ArrayLike, weights: npt.ArrayLike | None = None, tests: int = TESTS
) -> Estimates:
    """Means with intervals and tests, clustered; the same input always gives the same result.

    Args:
        values: [rows, columns], NaN = missing. Paired differences, where a test should compare two things.
        clusters: number or name of each row's cluster [rows].
        weights: weight of each value, positive, [rows, columns]; None: all weigh the same.
        tests: resamples that p is taken from; the smallest p is about 2 / tests.
    """
    table = np.asarray(values, dtype=np.float64)
    heavy = None if weights is None else np.broadcast_to(np.asarray(weights, dtype=np.float64), table.shape)
    sums, totals = cluster_sums(table, np.unique(np.asarray(clusters), return_inverse=True)[1], heavy)
    result = Estimates.empty(table.shape[1])
    # Only clusters that have a value can be drawn, so columns go together by the clusters they have.
    first, which = distinct_columns(totals > 0)
    for number, pattern in enumerate((totals[:, first] > 0).T):
        columns = np.flatnonzero(which == number)
        if pattern.any():
            part = _estimate(sums[np.ix_(pattern, columns)], totals[np.ix_(pattern, columns)], tests)
            for field in fields(Estimates):
                getattr(result, field.name)[columns] = getattr(part, field.name)
        else:
            result.clusters[columns] = 0
    result.n[:] = np.isfinite(table).sum(0)
    return result


def cluster_sums(values: Floats, clusters: Ints, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Sums of weight · value and of weight over the values that are not NaN, each [clusters, columns].

    Args:
        values: [rows, columns].
        clusters: 0-based number of each row's cluster [rows].
        weights: [rows, columns]; None: 1 each.
    """
    present = np.isfinite(values)
    heavy = present.astype(np.float64) if weights is None else np.where(present, weights, 0.0)
    n_clusters = int(clusters.max(initial=-1)) + 1
    return _added(heavy * np.where(present, values, 0.0), clusters, n_clusters), _added(heavy, clusters, n_clusters)


def _added(values: Floats, groups: Ints, n_groups: int) -> Floats:
    """Sums over the rows of each group, in the order of the rows, [groups, columns]."""
    columns = (np.bincount(groups, values[:, column], n_groups) for column in range(values.shape[1]))
    return np.stack(list(columns), axis=1) if values.shape[1] else np.zeros((n_groups, 0))


def _estimate(sums: Floats, weights: Floats, tests: int) -> Estimates:
    """The fields but `n`, from clusters that all have a value."""
    n_clusters, n_columns = sums.shape
    mean, result = sums.sum(0) / weights.sum(0), Estimates.empty(n_columns)
    is_many = n_clusters > BLOCKS
    result.mean[:], result.clusters[:] = mean, n_clusters
    flipped, flips = (_blocks_of(sums), RESAMPLES) if is_many else (sums, FLIPS)
    result.p_sign_flip[:] = result.p[:] = sign_flip_p(flipped, _SEED + 1, flips)
    result.d_z[:] = effect_size(sums / weights)
    if n_clusters >= FEWEST_CLUSTERS:
        error = jackknife_error(sums, weights)
        drawn = draw(sums, weights, RESAMPLES, RESAMPLES if is_many else tests, _SEED, error)
        result.p[:] = _resolved(drawn.p, sums, weights, tests, error) if is_many else drawn.p
        result.low[:], result.high[:] = percentile_interval(drawn.means)
        result.bca_low[:], result.bca_high[:] = bca_interval(drawn.means, mean, jackknife_means(sums, weights))
        result.t_low[:], result.t_high[:] = bootstrap_t_interval(drawn.t, mean, error)
    return result


def _resolved(p: Floats, sums: Floats, weights: Floats, tests: int, error: Floats) -> Floats:
    """The p of many clusters [columns]: those below `RESOLVED` from resampled blocks of clusters.

    Args:
        p: from resampled clusters [columns].
        sums: [clusters, columns].
        weights: [clusters, columns].
        tests: resamples of the blocks.
        error: standard error of the means [columns].
    """
    small = np.flatnonzero(p < RESOLVED)
    if len(small):
        sums, weights = _blocks_of(sums[:, small]), _blocks_of(weights[:, small])
        p = p.copy()
        p[small] = np.minimum(draw(sums, weights, RESAMPLES, tests, _SEED, error[small]).p, RESOLVED)
    return p


def _blocks_of(sums: Floats) -> Floats:
    """Sums of clusters [clusters, columns] in blocks, [BLOCKS, columns]; always the same clusters in a block."""
    return _added(sums, np.random.default_rng(_SEED + 2).permutation(len(sums)) % BLOCKS, BLOCKS)


def sign_flip_p(sums: Floats, rng: np.random.Generator | int, flips: int = FLIPS) -> Floats:
    """Two-sided p that the mean is 0, by flipping the sign of whole clusters.

    The counts do not change with the signs, so |Σ ± sums| orders the flips as the mean does. All flips are gone
    through up to `EXACT_CLUSTERS` clusters; beyond, p = (1 + hits)/(1 + flips) over random ones.

    Args:
        sums: [clusters, columns].
        rng: draws the signs; all columns share them. A seed: the signs of this seed, kept for the next call.
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
    kept = None
    if isinstance(rng, int):
        is_few = n_clusters * flips <= _KEPT_SIGNS
        kept, rng = (_kept_signs(n_clusters, flips, rng) if is_few else None), np.random.default_rng(rng)
    for start in range(0, flips, block):
        size = min(block, flips - start)
        signs = kept[start : start + size] if kept is not None else _signs(n_clusters, size, rng)
        hits += (np.abs(signs.astype(np.float64) @ (2 * sums) - total) >= least).sum(0)
    return (1 + hits) / (1 + flips)


def _signs(n_clusters: int, flips: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Which clusters keep their sign in each flip: 1, else 0 [flips, clusters]."""
    return rng.integers(0, 2, size=(flips, n_clusters), dtype=np.int8)


@lru_cache(maxsize=4)
def _kept_signs(n_clusters: int, flips: int, seed: int) -> npt.NDArray[np.int8]:
    """All signs of a seed: boards with as many clusters share them."""
    rng, block = np.random.default_rng(seed), max(1, _BLOCK_WEIGHTS // n_clusters)
    return np.concatenate([_signs(n_clusters, min(block, flips - start), rng) for start in range(0, flips, block)])


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
