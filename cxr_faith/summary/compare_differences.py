"""Paired differences between runs on the samples that they share, with intervals over patients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.metrics.groups import contrast
from cxr_faith.metrics.statistics import estimate, holm
from cxr_faith.records.controls import RANDOM, is_control
from cxr_faith.summary.columns import Flags, Floats, numbers, rounded
from cxr_faith.summary.method_rows import method_rows, shared_samples
from cxr_faith.summary.result import Result
from cxr_faith.summary.samples import sample_table, slices_of

ACCURACY = "accuracy"
EFFECT = "effect"
ANSWERS = (ACCURACY, EFFECT)
"""What is compared beside the methods: right answers, and answers that have an effect to explain."""


@dataclass(frozen=True)
class RunDifference(Result):
    """How far two runs are apart in one number, on the samples of one slice that have it in both."""

    slice: str
    """Which samples, as in `Board.slice`."""
    a: str
    """Name of the first run."""
    b: str
    """Name of the second run."""
    of: str
    """Name of a method, for its srg; "accuracy"; or "effect", the share of answers that have an effect to explain."""
    n: int
    """Samples."""
    n_patients: int
    """Their patients."""
    mean: float
    """Mean of a minus mean of b; that of srg is weighted by each run's own effect."""
    t_low: float | None
    """Lower end of the 95 % bootstrap-t interval over patients; None under ten patients."""
    t_high: float | None
    """Its upper end."""
    p: float | None
    """Two-sided p that the runs do not differ, from the same bootstrap."""
    p_holm: float | None
    """`p` after Holm's correction over the slice's methods and pairs of runs; answers are families of their own."""


@dataclass(frozen=True)
class Measured:
    """One number of one run, over the shared samples."""

    values: Floats
    """Values; NaN where a sample has none."""
    weights: Floats
    """Weights of the means."""


def shared_slices(frames: Sequence[pd.DataFrame]) -> dict[str, Flags]:
    """Slice → which of the shared samples are in it, [samples]; only slices that are the same samples in all runs.

    Samples by answer (answered yes, answered wrongly) are others in each run, so they have no place here.

    Args:
        frames: the records of each run, of the shared samples alone.
    """
    first, *others = (slices_of(sample_table(frame)) for frame in frames)
    return {
        name: inside
        for name, inside in first.items()
        if all(name in other and np.array_equal(inside, other[name]) for other in others)
    }


def run_differences(
    names: Sequence[str], frames: Sequence[pd.DataFrame], slices: Mapping[str, Flags]
) -> Iterator[RunDifference]:
    """Each pair of runs in each slice: accuracy, effect, and the srg of each method that both have.

    Args:
        names: names of the runs.
        frames: their records in one setting, of the shared samples alone.
        slices: what `shared_slices` gave.
    """
    patients = pd.factorize(sample_table(frames[0])["patient"], sort=True)[0]
    measured = [_measured(frame) for frame in frames]
    for slice, inside in slices.items():
        for answers in (True, False):
            asked = [
                (a, b, of)
                for a, b in combinations(range(len(names)), 2)
                for of in measured[a]
                if of in measured[b] and (of in ANSWERS) == answers
            ]
            family = list(_family(slice, names, measured, patients, inside, asked))
            for kind in ANSWERS if answers else ("",):
                yield from _adjusted([one for one in family if not answers or one.of == kind])


def _measured(frame: pd.DataFrame) -> dict[str, Measured]:
    table = sample_table(frame)
    everywhere = np.ones(len(table))
    random = frame[frame["method"].eq(RANDOM)].set_index("sample_id")["status"].reindex(table.index)
    effect = np.where(random.notna(), random.isin(MEASURED), np.nan)
    result = {
        ACCURACY: Measured(numbers(table["correct"]), everywhere),
        EFFECT: Measured(effect.astype(np.float64), everywhere),
    }
    methods = [name for name in dict.fromkeys(frame["method"]) if not is_control(name)]
    for rows in method_rows([frame], methods, table, shared_samples([frame], table)):
        values, weights = np.full(len(table), np.nan), np.ones(len(table))
        chosen = rows.common
        values[rows.sample[chosen]] = rows.values["srg"][chosen]
        weights[rows.sample[chosen]] = rows.values["effect"][chosen]
        result[rows.method] = Measured(values, weights)
    return result


def _family(
    slice: str,
    names: Sequence[str],
    measured: Sequence[Mapping[str, Measured]],
    patients: npt.NDArray[np.intp],
    inside: Flags,
    asked: Sequence[tuple[int, int, str]],
) -> Iterator[RunDifference]:
    columns, kept = [], []
    for a, b, of in asked:
        left, right = measured[a][of], measured[b][of]
        both = inside & np.isfinite(left.values) & np.isfinite(right.values)
        count = len(np.unique(patients[both]))
        if count > 1:
            columns.append(_paired(left, right, patients, both))
            kept.append((a, b, of, int(both.sum()), count))
    if not columns:
        return
    result = estimate(np.stack(columns, axis=1), np.arange(len(columns[0])))
    for column, (a, b, of, n, count) in enumerate(kept):
        yield RunDifference(
            slice=slice,
            a=names[a],
            b=names[b],
            of=of,
            n=n,
            n_patients=count,
            mean=float(f"{result.mean[column]:.10g}"),
            t_low=rounded(result.t_low[column]),
            t_high=rounded(result.t_high[column]),
            p=rounded(result.p[column]),
            p_holm=None,
        )


def _paired(left: Measured, right: Measured, patients: npt.NDArray[np.intp], both: Flags) -> Floats:
    """One value for each patient whose mean is the difference of the two runs' means over the samples in `both`."""
    count = int(both.sum())
    values, weights = (
        np.concatenate([getattr(one, name)[both] for one in (left, right)]) for name in ("values", "weights")
    )
    first = np.arange(2 * count) < count
    clusters = np.unique(patients[both], return_inverse=True)[1]
    own = contrast(values, np.concatenate([clusters, clusters]), weights, first, ~first)
    return np.pad(own, (0, int(patients.max()) + 1 - len(own)), constant_values=np.nan)


def _adjusted(family: Sequence[RunDifference]) -> Iterator[RunDifference]:
    adjusted = holm([np.nan if one.p is None else one.p for one in family])
    for one, p in zip(family, adjusted, strict=True):
        yield RunDifference(**(vars(one) | {"p_holm": float(p) if np.isfinite(p) else None}))
