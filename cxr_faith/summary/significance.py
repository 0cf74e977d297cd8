"""How certain a board's means are: intervals and tests for each method, and which methods can be told apart."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.cluster_sums import Part
from cxr_faith.metrics.statistics import LEVEL, TESTS, Estimates, estimate_parts, holm
from cxr_faith.records import GAPS
from cxr_faith.records.controls import ABLATED, RANDOM
from cxr_faith.summary.board import Board
from cxr_faith.summary.columns import Flags, Floats, rounded
from cxr_faith.summary.interval import Difference, Interval
from cxr_faith.summary.method_rows import WEIGHTED, MethodRows

TESTED: Mapping[str, tuple[str, bool]] = {
    **{name: (name, False) for name in (*GAPS, "srg", "srg_logit")},
    "srg_logit_scored": ("srg_logit", True),
}
"""Column of a board → column of the records, and whether all scored samples count instead of the common ones."""

Picked = Sequence[tuple[MethodRows, Flags]]
"""Rows of each method, and which of them belong to the slice, [rows]."""

_TESTS_A_PAIR = 80
_TESTED_AT_ONCE = 50_000_000  # values of columns that share one pass over the resamples; their sums: 400 MB, twice
_PAIRED_AT_ONCE = 5_000_000  # differences in memory at a time: 40 MB, and a few times that on the way to their sums


def intervals(picked: Picked, n_samples: int) -> list[dict[str, Interval]]:
    """For each method, `TESTED` column → interval and test; p is adjusted over the methods, column by column.

    Args:
        picked: rows of each method and which of them belong to the slice.
        n_samples: samples of the whole run.
    """
    patients, tests = _patients(picked, n_samples), dict[str, list[Interval]]()
    names, width = list(TESTED), len(picked)
    at_once = max(1, _TESTED_AT_ONCE // max(n_samples * width, 1))
    for chunk in (names[start : start + at_once] for start in range(0, len(names), at_once)):
        parts = ((_table(picked, name, n_samples), _weights(picked, name, n_samples)) for name in chunk)
        together = estimate_parts(parts, patients)
        tests |= {name: _adjusted(together, range(k * width, (k + 1) * width)) for k, name in enumerate(chunk)}
    return [dict(zip(tests, of_method, strict=True)) for of_method in zip(*tests.values(), strict=True)]


def differences(picked: Picked, headline: str, n_samples: int) -> tuple[Difference, ...]:
    """Each pair of methods except `random`, on the samples that both have; p is adjusted over the pairs.

    An ablation is compared with its own method alone.

    Args:
        picked: rows of each method and which of them belong to the slice.
        headline: the column to compare, a key of `TESTED`.
        n_samples: samples of the whole run.
    """
    names = [rows.method for rows, _ in picked]
    table, weights = _table(picked, headline, n_samples), _weights(picked, headline, n_samples)
    return paired_differences(names, table, _patients(picked, n_samples), weights)


def paired_differences(
    names: Sequence[str], values: Floats, patients: npt.NDArray[np.intp], weights: Floats | None = None
) -> tuple[Difference, ...]:
    """`differences` of values that are in memory.

    Args:
        names: names of the methods.
        values: [samples, methods], NaN where a method has no value.
        patients: number of each sample's patient, [samples].
        weights: weight of each value, [samples, methods]; a sample weighs the same for all methods that have it.
    """
    known = np.isfinite(values)
    pairs = [
        (a, b)
        for a, b in combinations(range(len(names)), 2)
        if _compared(names[a], names[b]) and (known[:, a] & known[:, b]).any()
    ]
    if not pairs:
        return ()
    # Holm multiplies the smallest p by the number of pairs: that product must be able to fall below .05.
    resamples = max(TESTS, _TESTS_A_PAIR * len(pairs))
    tested = [
        estimate_parts(_differences(values, weights, some), patients, resamples)
        for some in _chunks(pairs, _TESTED_AT_ONCE // max(len(values), 1))
    ]
    tests = _adjusted(Estimates.joined(tested), range(len(pairs)))
    return tuple(Difference(a=names[a], b=names[b], **vars(test)) for (a, b), test in zip(pairs, tests, strict=True))


def _differences(values: Floats, weights: Floats | None, pairs: Sequence[tuple[int, int]]) -> Iterator[Part]:
    """The differences of pairs of columns and their weights, some pairs at a time."""
    for some in _chunks(pairs, _PAIRED_AT_ONCE // max(len(values), 1)):
        first, second = np.array(some).T
        yield values[:, first] - values[:, second], None if weights is None else weights[:, first]


def _chunks(pairs: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The pairs, `size` at a time, at least one."""
    return (pairs[start : start + max(size, 1)] for start in range(0, len(pairs), max(size, 1)))


def _compared(a: str, b: str) -> bool:
    """Whether two methods are compared, listed in any order."""
    ablations = a.endswith(ABLATED) + b.endswith(ABLATED)
    return RANDOM not in (a, b) and (ablations == 0 or a + ABLATED == b or b + ABLATED == a)


def _patients(picked: Picked, n_samples: int) -> npt.NDArray[np.intp]:
    """Number of each sample's patient, [samples]; 0 for samples outside the slice."""
    patients = np.zeros(n_samples, np.intp)
    for rows, _ in picked:
        patients[rows.sample] = rows.patient
    return patients


def _table(picked: Picked, name: str, n_samples: int) -> Floats:
    """Values of a `TESTED` column, [samples, methods]; NaN where a method has no value."""
    column, by_scored = TESTED[name]
    table = np.full((n_samples, len(picked)), np.nan)
    for index, (rows, inside) in enumerate(picked):
        chosen = inside & (rows.scored if by_scored else rows.common)
        table[rows.sample[chosen], index] = rows.values[column][chosen]
    return table


def _weights(picked: Picked, name: str, n_samples: int) -> Floats:
    """Weights of the values of `_table`, the same shape: the effect for columns in units of it, else 1."""
    column, _ = TESTED[name]
    weights = np.ones((n_samples, len(picked)))
    if column in WEIGHTED:
        for index, (rows, _) in enumerate(picked):
            weights[rows.sample, index] = rows.values["effect"]
    return weights


def _adjusted(estimates: Estimates, columns: Sequence[int]) -> list[Interval]:
    """Some columns of estimates, with p after Holm over these columns."""
    p = [rounded(estimates.p[column]) for column in columns]
    adjusted = holm([np.nan if value is None else value for value in p])
    return [
        Interval(
            mean=rounded(estimates.mean[column]),
            n=int(estimates.n[column]),
            clusters=int(estimates.clusters[column]),
            t_low=rounded(estimates.t_low[column]),
            t_high=rounded(estimates.t_high[column]),
            low=rounded(estimates.low[column]),
            high=rounded(estimates.high[column]),
            bca_low=rounded(estimates.bca_low[column]),
            bca_high=rounded(estimates.bca_high[column]),
            p=p[number],
            p_sign_flip=rounded(estimates.p_sign_flip[column]),
            d_z=rounded(estimates.d_z[column]),
            p_holm=float(adjusted[number]) if np.isfinite(adjusted[number]) else None,
        )
        for number, column in enumerate(columns)
    ]


def upside_down(board: Board, ranking: Sequence[str]) -> list[Difference]:
    """Significant differences whose sign contradicts the ranking.

    The ranking takes each method's own samples, a difference takes those that both methods have.

    Args:
        board: a board.
        ranking: names of its methods, best first.
    """
    place = {name: index for index, name in enumerate(ranking)}
    return [
        pair
        for pair in board.differences
        if pair.p_holm < 1 - LEVEL and (pair.mean > 0) != (place[pair.a] < place[pair.b])
    ]


def not_told_apart(board: Board, ranking: Sequence[str]) -> dict[str, list[str]]:
    """Method → the methods that it does not beat significantly, although its mean is higher; only where there are any.

    Of two methods, the samples that both have decide which mean is higher.

    Args:
        board: a board.
        ranking: names of its methods, best first.
    """
    place = {name: index for index, name in enumerate(ranking)}
    tied: dict[str, list[str]] = {name: [] for name in ranking}
    for pair in board.differences:
        if pair.p_holm >= 1 - LEVEL:
            upper, lower = (pair.a, pair.b) if pair.mean > 0 else (pair.b, pair.a)
            tied[upper].append(lower)
    return {name: sorted(others, key=place.__getitem__) for name, others in tied.items() if others}
