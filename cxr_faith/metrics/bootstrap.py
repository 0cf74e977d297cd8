"""Bootstrap of a ratio of sums over clusters: means, studentized means and their intervals.

A resample is a row of weights, so all means of all resamples are one matrix product, and so are their standard errors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from cxr_faith.metrics.cluster_sums import Kinds

Floats = npt.NDArray[np.float64]

LEVEL = 0.95

_BLOCK = 500_000  # weights, or values of all columns, in memory at a time: 4 MB, which caches hold
_LEAST_ROWS = 96  # of a block: with fewer, a product reads the clusters from memory more often than it computes
_DOUBLE = (
    2_000  # from as many clusters on, products are in single precision: 1e-6 of a standard error, in half the time
)
_KEPT = 64_000_000  # bytes: larger counts are drawn again for each board
_NO_SPREAD = 1e-12  # standard errors below this share of the largest cluster mean are rounding
_ENDLESS = 1e200  # t of a resample without spread; no interval ends there


@dataclass(frozen=True)
class Drawn:
    """What the resamples of the clusters say about each column.

    Attributes:
        means: mean of every resample [resamples, columns].
        t: their studentized distances to the mean of the data, (mean* - mean) / error* [resamples, columns].
        p: two-sided p that the mean is 0, from the studentized distances [columns].
    """

    means: Floats
    t: Floats
    p: Floats


def jackknife_means(sums: Floats, weights: Floats) -> Floats:
    """Means Σ sums / Σ weights with one cluster left out, [clusters, columns]."""
    return np.asarray((sums.sum(0) - sums) / (weights.sum(0) - weights))


def jackknife_error(sums: Floats, weights: Floats) -> Floats:
    """Jackknife standard error of the mean Σ sums / Σ weights, [columns]; NaN for fewer than two clusters."""
    n_clusters = len(sums)
    if n_clusters < 2:
        return np.full(sums.shape[1], np.nan)
    means = jackknife_means(sums, weights)
    return np.asarray(np.sqrt((n_clusters - 1) / n_clusters * ((means - means.mean(0)) ** 2).sum(0)))


def draw(
    sums: Floats,
    weights: Floats,
    resamples: int,
    tests: int,
    rng: np.random.Generator | int,
    error: Floats | None = None,
) -> Drawn:
    """Resample the clusters with replacement; all columns share the draws. See `Resampling.draw`.

    Args:
        sums: Σ weight · value of each cluster [clusters, columns].
        weights: Σ weight, the same shape, nowhere 0.
        resamples: number of resamples whose means and t are kept.
        tests: number of resamples that p is taken from, at least `resamples`.
        rng: draws the clusters; a seed: the draws of this seed, which are kept for the next call.
        error: standard error of the mean of the data [columns]; None: that of these clusters.
    """
    columns = Resampling(*sums.shape)
    columns.add(sums, weights, jackknife_error(sums, weights) if error is None else error)
    return columns.draw(resamples, tests, rng)


class Resampling:
    """Columns of sums over clusters, made ready to be resampled, some at a time.

    The error of a resample is that of a ratio of sums, √(n/(n-1) Σ (sum_i - mean* weight_i)²) / Σ weight_i, the first
    order of its jackknife, which needs no loop over the clusters.

    Args:
        n_clusters: number of clusters.
        n_columns: number of columns that will be added.
    """

    def __init__(self, n_clusters: int, n_columns: int) -> None:
        self._n_clusters, self._n_columns = n_clusters, n_columns
        self._number = np.dtype(np.float64 if n_clusters < _DOUBLE else np.float32)
        # Distances to the mean, their squares, and their products with the weights: three blocks of columns.
        self._own = np.empty((n_clusters, 3 * n_columns), self._number)
        self._known, self._kinds = Kinds(), list[Floats]()
        self._kind = list[npt.NDArray[np.intp]]()
        self._mean, self._floor, self._observed = (np.empty(n_columns) for _ in range(3))
        self._added = 0

    def add(self, sums: Floats, weights: Floats, error: Floats) -> None:
        """Add the next columns.

        Args:
            sums: Σ weight · value of each cluster [clusters, columns].
            weights: Σ weight, the same shape, nowhere 0.
            error: standard error of the mean of the data [columns].
        """
        mean = sums.sum(0) / weights.sum(0)
        rest = sums - mean * weights  # distances to the mean, since squares of the sums would cancel
        columns = slice(self._added, self._added + len(mean))
        for block, values in enumerate((rest, rest**2, rest * weights)):
            self._own[:, block * self._n_columns + columns.start :][:, : len(mean)] = values
        new, kind = self._known.add(weights)
        self._kinds.append(weights[:, new])
        self._kind.append(kind)
        self._mean[columns] = mean
        self._floor[columns] = _NO_SPREAD * np.abs(sums / weights).max(0)
        self._observed[columns] = studentized(mean, error, self._floor[columns])
        self._added = columns.stop

    def draw(self, resamples: int, tests: int, rng: np.random.Generator | int) -> Drawn:
        """Resample the clusters with replacement; all columns share the draws.

        Args:
            resamples: number of resamples whose means and t are kept.
            tests: number of resamples that p is taken from, at least `resamples`.
            rng: draws the clusters; a seed: the draws of this seed, which are kept for the next call.
        """
        kinds, kind, n_clusters = np.hstack(self._kinds), np.concatenate(self._kind), self._n_clusters
        shared = np.hstack([kinds, kinds**2]).astype(self._number)
        least = 1e-9 * np.abs(self._observed)  # equal values must count as equal although added up in another order
        kept_means, kept_t = (np.empty((resamples, self._n_columns)) for _ in range(2))
        above, below, start = np.zeros(self._n_columns), np.zeros(self._n_columns), 0
        for counts in _resampled_counts(n_clusters, self._n_columns, max(resamples, tests), rng):
            times = counts.astype(self._number)
            of_columns, of_kinds = (np.asarray(times @ part, np.float64) for part in (self._own, shared))
            distance, squares, mixed = np.split(of_columns, 3, axis=1)
            total, total_squares = (part[:, kind] for part in np.split(of_kinds, 2, axis=1))
            distance = distance / total
            variance = squares - 2 * distance * mixed + distance**2 * total_squares
            error = np.sqrt(n_clusters / max(n_clusters - 1, 1) * variance.clip(min=0)) / total
            t = studentized(distance, error, self._floor)
            above += (t >= self._observed - least).sum(0)
            below += (t <= self._observed + least).sum(0)
            stop = min(start + len(counts), resamples)
            if start < stop:
                kept_means[start:stop] = self._mean + distance[: stop - start]
                kept_t[start:stop] = t[: stop - start]
            start += len(counts)
        return Drawn(kept_means, kept_t, np.minimum(2 * (1 + np.minimum(above, below)) / (1 + start), 1.0))


def studentized(distance: Floats, error: Floats, floor: Floats) -> Floats:
    """Distance over its error; without any spread 0 or ±1e200, as the distance is 0 or not."""
    still = ~(error > floor)
    alone = np.where(np.abs(distance) > floor, np.sign(distance) * _ENDLESS, 0.0)
    return np.asarray(np.where(still, alone, distance / np.where(still, 1.0, error)))


def _resampled_counts(
    n_clusters: int, n_columns: int, resamples: int, rng: np.random.Generator | int
) -> Iterator[npt.NDArray[np.integer]]:
    """How often each cluster is drawn in each resample, [block, clusters] at a time."""
    block = max(_LEAST_ROWS, _BLOCK // max(n_clusters, n_columns))
    if isinstance(rng, int) and n_clusters * resamples > _KEPT:
        rng = np.random.default_rng(rng)
    if isinstance(rng, int):
        kept = _kept_counts(n_clusters, resamples, rng)
        yield from (kept[start : start + block] for start in range(0, resamples, block))
    else:
        for start in range(0, resamples, block):
            yield _counts(n_clusters, min(block, resamples - start), rng)


def _counts(n_clusters: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """How often each cluster is drawn in each of the next resamples, [resamples, clusters]."""
    counts = np.empty((resamples, n_clusters), np.uint8)
    rows = max(1, _BLOCK // n_clusters)  # at a time: the draws themselves take 8 bytes each
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n_clusters, size=(size, n_clusters)) + np.arange(size)[:, None] * n_clusters
        counts[start : start + size] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return counts


@lru_cache(maxsize=4)
def _kept_counts(n_clusters: int, resamples: int, seed: int) -> npt.NDArray[np.uint8]:
    """All counts of a seed: boards with as many clusters share them."""
    return _counts(n_clusters, resamples, np.random.default_rng(seed))


def percentile_interval(drawn: Floats) -> tuple[Floats, Floats]:
    """The middle 95 % of the resampled means [resamples, columns]; (low, high), each [columns]."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def bootstrap_t_interval(t: Floats, mean: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Studentized bootstrap interval, Efron 1981: mean - error · quantiles of t, upper and lower exchanged.

    It follows the skew of the data, which the percentile and BCa intervals do too late for a few dozen clusters.

    Args:
        t: studentized distances of the resamples [resamples, columns].
        mean: of the data [columns].
        error: its standard error [columns].

    Returns:
        (low, high), each [columns]; NaN where the resamples without any spread reach into the tails.
    """
    lower, upper = percentile_interval(t)
    low, high = mean - upper * error, mean - lower * error
    usable = (np.abs(lower) < _ENDLESS / 2) & (np.abs(upper) < _ENDLESS / 2)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def acceleration(jackknife: Floats) -> Floats:
    """How fast the standard error changes with the mean (Efron 1987), [columns]; NaN without spread.

    Args:
        jackknife: estimates with one cluster left out [clusters, columns].
    """
    offset = jackknife.mean(0) - jackknife
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((offset**3).sum(0) / (6 * (offset**2).sum(0) ** 1.5))


def bca_interval(drawn: Floats, observed: Floats, acceleration: Floats) -> tuple[Floats, Floats]:
    """Bias-corrected and accelerated bootstrap interval, Efron 1987.

    Args:
        drawn: bootstrap distribution [resamples, columns].
        observed: estimate from the data [columns].
        acceleration: what the function of this name gives [columns].

    Returns:
        (low, high), each [columns]; NaN where all resamples lie on one side of the estimate, or are equal.
    """
    below = ((drawn < observed).mean(0) + (drawn <= observed).mean(0)) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = ndtri(below)
        ends = []
        for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
            shifted = bias + ndtri(tail)
            ends.append(ndtr(bias + shifted / (1 - acceleration * shifted)))
    usable = np.isfinite(ends).all(0)
    bounds = np.full((2, len(observed)), np.nan)
    for column in np.flatnonzero(usable):
        bounds[:, column] = np.quantile(drawn[:, column], [ends[0][column], ends[1][column]])
    return bounds[0], bounds[1]
