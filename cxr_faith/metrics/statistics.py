"""How sure a mean is when rows come in clusters: bootstrap intervals and tests, sign flips, Holm, effect sizes.

The questions of a patient are not independent, so whole patients are resampled and flipped. Rows may have weights: a
mean is Σ weight · value / Σ weight. Everything works on the sums of clusters, for many columns (methods x metrics) at
once; see `metrics.bootstrap`.

More than `BLOCKS` clusters are resampled 2,000 times for p as well as for the intervals. Where that p is below
`RESOLVED`, and so rests on a few resamples, it comes from `TESTS` resamples of `BLOCKS` blocks of clusters, dealt at
random (random groups; Wolter 2007, chapter 2): these cost the same for any number of clusters. Blocks have their signs
flipped, too: where the clusters are distributed symmetrically, sums of clusters are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.bootstrap import (
    LEVEL,
    Resampling,
    acceleration,
    bca_interval,
    bootstrap_t_interval,
    draw,
    jackknife_error,
    jackknife_means,
    percentile_interval,
)
from cxr_faith.metrics.cluster_sums import ClusterSums, Flags, Floats, Ints, Part, added, cluster_sums

__all__ = ["LEVEL", "Estimates", "cluster_sums", "effect_size", "estimate", "estimate_parts", "holm", "sign_flip_p"]

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
_VALUES_AT_ONCE = 4_000_000  # sums that are worked on at a time: 32 MB, and a few times that on the way
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

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The columns of several estimates after one another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


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
    return estimate_parts([(table, heavy)], clusters, tests)


def estimate_parts(parts: Iterable[Part], clusters: npt.ArrayLike, tests: int = TESTS) -> Estimates:
    """`estimate` of columns that come in parts, of which one at a time is in memory: one number per column of them all.

    Args:
        parts: values [rows, columns] and weights of some columns; at least one part.
        clusters: number or name of each row's cluster [rows].
        tests: resamples that p is taken from.
    """
    sums = ClusterSums.of(parts, np.unique(np.asarray(clusters), return_inverse=True)[1])
    result = Estimates.empty(sums.sums.shape[1])
    # Only clusters that have a value can be drawn, so columns go together by the clusters they have.
    for pattern, columns in sums.by_clusters():
        if pattern.any():
            part = _estimate(sums, pattern, columns, tests)
            for field in fields(Estimates):
                getattr(result, field.name)[columns] = getattr(part, field.name)
        else:
            result.clusters[columns] = 0
    result.n[:] = sums.n
    return result


def _estimate(data: ClusterSums, pattern: Flags, chosen: Ints, tests: int) -> Estimates:
    """The fields but `n` of some columns, from the clusters in which they all have a value."""
    n_clusters, n_columns = int(pattern.sum()), len(chosen)
    is_many, has_interval = n_clusters > BLOCKS, n_clusters >= FEWEST_CLUSTERS
    result, error, bend = Estimates.empty(n_columns), np.empty(n_columns), np.empty(n_columns)
    columns, blocks = Resampling(n_clusters, n_columns if has_interval else 0), list[tuple[Floats, Floats]]()
    at_once = max(1, _VALUES_AT_ONCE // n_clusters)
    for some in (slice(start, start + at_once) for start in range(0, n_columns, at_once)):
        sums, weights = data.part(pattern, chosen[some])
        if is_many:
            blocks.append((_blocks_of(sums), _blocks_of(weights)))
        flipped, flips = (blocks[-1][0], RESAMPLES) if is_many else (sums, FLIPS)
        result.mean[some] = sums.sum(0) / weights.sum(0)
        result.p_sign_flip[some] = sign_flip_p(flipped, _SEED + 1, flips)
        result.d_z[some] = effect_size(sums / weights)
        if has_interval:
            error[some] = jackknife_error(sums, weights)
            bend[some] = acceleration(jackknife_means(sums, weights))
            columns.add(sums, weights, error[some])
    result.clusters[:], result.p[:] = n_clusters, result.p_sign_flip
    if has_interval:
        drawn = columns.draw(RESAMPLES, RESAMPLES if is_many else tests, _SEED)
        result.p[:] = _resolved(drawn.p, blocks, tests, error) if is_many else drawn.p
        result.low[:], result.high[:] = percentile_interval(drawn.means)
        result.bca_low[:], result.bca_high[:] = bca_interval(drawn.means, result.mean, bend)
        result.t_low[:], result.t_high[:] = bootstrap_t_interval(drawn.t, result.mean, error)
    return result


def _resolved(p: Floats, blocks: Sequence[tuple[Floats, Floats]], tests: int, error: Floats) -> Floats:
    """The p of many clusters [columns]: those below `RESOLVED` from resampled blocks of clusters.

    Args:
        p: from resampled clusters [columns].
        blocks: sums and weights in blocks of clusters, each [BLOCKS, columns], some columns after the others.
        tests: resamples of the blocks.
        error: standard error of the means [columns].
    """
    small = np.flatnonzero(p < RESOLVED)
    if len(small):
        sums, weights = (np.hstack(parts)[:, small] for parts in zip(*blocks, strict=True))
        p = p.copy()
        p[small] = np.minimum(draw(sums, weights, RESAMPLES, tests, _SEED, error[small]).p, RESOLVED)
    return p


def _blocks_of(sums: Floats) -> Floats:
    """Sums of clusters [clusters, columns] in blocks, [BLOCKS, columns]; always the same clusters in a block."""
    return added(sums, np.random.default_rng(_SEED + 2).permutation(len(sums)) % BLOCKS, BLOCKS)


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
