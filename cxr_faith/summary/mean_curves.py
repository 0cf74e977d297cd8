"""Mean normalized curves by method and slice, weighted by the effect, from records that come in pieces.

With these weights a mean is Σ (s - s_substrate) / Σ effect: no curve is divided by an effect of its own.

Curves are most of what a summary reads, so they are never all in memory. Sums are exact: a mean depends neither on the
order of the pieces nor on how many ranks wrote them.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.records.controls import SETTING
from cxr_faith.summary.board import Setting
from cxr_faith.summary.columns import Flags
from cxr_faith.summary.curves import Curves

COLUMNS = ("status", "k", "deletion_scores", "insertion_scores", "s_original", "s_substrate")
"""The columns of the records that mean curves are made from."""

Whole = npt.NDArray[np.int64]

# A value is split into a whole number of 2**-12 and a remainder in whole numbers of 2**-48. A curve's values are a few
# hundred logits at most; values up to 2**26 leave room for 2**25 rows in 64 bits.
_COARSE, _FINE = 2.0**12, 2.0**48


def split(values: npt.NDArray[np.float64]) -> tuple[Whole, Whole]:
    """Finite values in fixed point: whole numbers of 2**-12, and the rest in whole numbers of 2**-48."""
    coarse = np.rint(values * _COARSE)
    return coarse.astype(np.int64), np.rint((values - coarse / _COARSE) * _FINE).astype(np.int64)


class ExactSums:
    """Sums of arrays in fixed point, accurate to 2**-49 a term; the order of the terms does not matter.

    Args:
        shape: shape of one term.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._coarse, self._fine = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add over the first axis of finite values [terms, *shape]."""
        self.add_split(*split(values))

    def add_split(self, coarse: Whole, fine: Whole) -> None:
        """Add over the first axis of what `split` returned, [terms, *shape] each."""
        self._coarse += coarse.sum(axis=0)
        self._fine += fine.sum(axis=0)

    def mean(self, count: int) -> npt.NDArray[np.float64]:
        """The sums divided by a count."""
        mean: npt.NDArray[np.float64] = (self._coarse / _COARSE + self._fine / _FINE) / count
        return mean


class MeanCurves:
    """Means of normalized curves over the common samples of every setting, method and slice.

    Args:
        samples: ids of all samples, sorted.
        common: setting → which samples are ok for every method that has a row for them.
        slices: name → which samples are in it.
    """

    def __init__(self, samples: "pd.Index[str]", common: Mapping[Setting, Flags], slices: Mapping[str, Flags]) -> None:
        self._samples, self._common, self._slices = samples, common, slices
        self._steps: dict[tuple[Setting, str], tuple[Whole, str]] = {}
        self._sums: dict[tuple[Setting, str, str], tuple[ExactSums, int]] = {}

    def add(self, piece: pd.DataFrame) -> None:
        """Add records with the key and `COLUMNS`; rows with a condition other than "none" are left out.

        Raises:
            ValueError: curves of one method that were measured at different steps.
        """
        piece = piece[piece["condition"].eq(NONE)]
        for key, rows in piece.groupby([*SETTING, "method"], sort=True):
            *place, method = map(str, key)
            setting = Setting(*place)
            if setting not in self._common:
                continue
            position = self._samples.get_indexer(pd.Index(rows["sample_id"]))
            # An unfinished run may have written more records since its samples were listed: position is -1 there.
            chosen = self._common[setting][position] & (position >= 0)
            chosen &= (
                rows["status"].isin(MEASURED).to_numpy(bool)
            )  # a method that failed everywhere has common samples too
            if chosen.any():
                self._add(setting, method, rows[chosen], position[chosen])

    def _add(self, setting: Setting, method: str, rows: pd.DataFrame, position: npt.NDArray[np.intp]) -> None:
        key, schedules = (setting, method), [np.asarray(k) for k in rows["k"]]
        is_one = len({k.tobytes() for k in schedules}) == 1  # so it is but where questions differ in their pictures
        for sample, k in list(zip(rows["sample_id"], schedules, strict=True))[: 1 if is_one else None]:
            steps, first = self._steps.setdefault(key, (k, sample))
            if not _same_shares(k, steps):
                raise ValueError(f"samples {first!r} and {sample!r}: curves at different steps have no mean")
            if k[-1] > steps[-1]:  # questions of more pictures have more cells
                self._steps[key] = k, sample
        original, removed = (rows[name].to_numpy(np.float64)[:, None] for name in ("s_original", "s_substrate"))
        sides = [np.stack(rows[name].to_list()).astype(np.float64) for name in ("deletion_scores", "insertion_scores")]
        # Beside each curve the effect, whose sum divides those of the curves.
        coarse, fine = split(np.stack([np.hstack([side - removed, original - removed]) for side in sides], axis=1))
        for name, inside in self._slices.items():
            within = inside[position]
            if within.any():
                sums, count = self._sums.get((setting, method, name), (ExactSums(coarse.shape[1:]), 0))
                sums.add_split(coarse[within], fine[within])
                self._sums[setting, method, name] = sums, count + int(within.sum())

    def mean(self, setting: Setting, method: str, name: str) -> Curves | None:
        """The mean curves of one method in one slice; None if it has no common sample there."""
        if (setting, method, name) not in self._sums:
            return None
        sums, count = self._sums[setting, method, name]
        steps, _ = self._steps[setting, method]
        means = sums.mean(count)
        deletion, insertion = (means[:, :-1] / means[:, -1:]).tolist()
        return Curves(
            n=count, x=tuple((steps / steps[-1]).tolist()), deletion=tuple(deletion), insertion=tuple(insertion)
        )


def _same_shares(k: Whole, other: Whole) -> bool:
    """Whether two schedules [T + 1] take the same shares of their cells, but for rounding to whole cells."""
    if len(k) != len(other):
        return False
    if k[-1] == other[-1]:
        return bool(np.array_equal(k, other))
    return bool(np.abs(k / k[-1] - other / other[-1]).max() <= 1 / min(k[-1], other[-1]))
