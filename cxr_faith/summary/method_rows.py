"""The records of one method in one setting as arrays, and which samples count for a comparison of all methods."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import MEASURED, STATUSES
from cxr_faith.records import GAPS
from cxr_faith.records.controls import SETTING
from cxr_faith.summary.columns import Flags, Floats, numbers
from cxr_faith.summary.parts import by_method

UNSCORED = ("off_format", "invalid")
"""Statuses whose unnormalized scores mean nothing either."""

WEIGHTED = ("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", "retained_50", *GAPS)
"""Columns in units of the effect: their means are weighted by it, since an answer that hardly moves says little."""

NORMALIZED = (
    *WEIGHTED,
    "random_z",
    "flip_deletion",
    "flip_insertion",
    "clipped_share",
    "monotonicity_violations",
    "tie_share",
)
"""Columns averaged over the common samples."""

UNNORMALIZED = ("deletion_auc_logit", "insertion_auc_logit", "srg_logit")
"""Columns averaged over the common samples, and as `*_scored` over the scored samples, whatever their effect."""


@dataclass(frozen=True)
class MethodRows:
    """The rows of one method in one setting, as arrays over its samples, sorted by `sample_id`."""

    method: str
    """Name of the method."""
    own_substrate: bool
    """Whether the method perturbs with this substrate itself."""
    sample: npt.NDArray[np.intp]
    """Position of each row's sample in the table of samples, [rows]."""
    patient: npt.NDArray[np.intp]
    """Number of each row's patient, [rows]."""
    status: npt.NDArray[np.int8]
    """Place of each row's status in `metrics.functional.STATUSES`, [rows]."""
    common: Flags
    """Whether every method that has a row for the sample has normalized scores of it, [rows]."""
    scored: Flags
    """Whether every method that has a row for the sample could score it, [rows]."""
    flat: Flags
    """Whether all cells of the map are equal, [rows]."""
    values: dict[str, Floats]
    """Column → its values [rows], NaN where null."""


def never_scored(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Rows of the methods that failed on every sample: they must not remove the samples of the others.

    Args:
        rows: records of one setting, or of several.
    """
    keys = [rows[name] for name in (*SETTING, "method")]
    return rows["status"].isin(UNSCORED).groupby(keys).transform("all")


@dataclass(frozen=True)
class SharedSamples:
    """Which samples of a setting count for a comparison of all methods; methods that failed everywhere do not count."""

    common: Flags
    """Whether every method that has a row for the sample has normalized scores of it, [samples]."""
    scored: Flags
    """Whether every method that has a row for the sample could score it, [samples]."""
    failed: Flags
    """Whether some method, of all methods, could not score it, [samples]."""


def shared_samples(parts: Iterable[pd.DataFrame], samples: pd.DataFrame) -> SharedSamples:
    """Which samples of one setting count for a comparison.

    Args:
        parts: records of the setting; each method has all its rows in one part.
        samples: one row per sample of the run, indexed by `sample_id`.
    """
    seen, common, scored, failed = (np.full(len(samples), flag) for flag in (False, True, True, False))
    for part in parts:
        place = samples.index.get_indexer(pd.Index(part["sample_id"]))
        counts, ok = ~never_scored(part).to_numpy(bool), part["status"].isin(MEASURED).to_numpy(bool)
        is_scored = ~part["status"].isin(UNSCORED).to_numpy(bool)
        seen[place[counts]] = True
        common[place[counts & ~ok]] = False
        scored[place[counts & ~is_scored]] = False
        failed[place[~is_scored]] = True
    return SharedSamples(common & seen, scored & seen, failed)


def common_samples(rows: pd.DataFrame, samples: pd.DataFrame) -> Flags:
    """Which samples are ok (or flat) for every method that has a row for them and could score any sample, [samples].

    Args:
        rows: records of one setting.
        samples: one row per sample of the run, indexed by `sample_id`.
    """
    return shared_samples([rows], samples).common


def method_rows(
    parts: Iterable[pd.DataFrame], order: Sequence[str], samples: pd.DataFrame, shared: SharedSamples
) -> Iterator[MethodRows]:
    """The rows of one setting, method by method.

    Args:
        parts: records of that setting, sorted by key; each method has all its rows in one part.
        order: names of the methods; those without rows are left out.
        samples: one row per sample of the run, indexed by `sample_id`, with a column `patient`.
        shared: what `shared_samples` gave for all methods of the setting.
    """
    patients = pd.factorize(samples["patient"], sort=True)[0]
    for method, mine in by_method(parts, order):
        position = samples.index.get_indexer(pd.Index(mine["sample_id"]))
        ok, is_unscored = mine["status"].isin(MEASURED), mine["status"].isin(UNSCORED)
        yield MethodRows(
            method=method,
            own_substrate=bool(mine["own_substrate"].eq(True).any()),
            sample=position,
            patient=patients[position],
            status=pd.Categorical(mine["status"], categories=list(STATUSES)).codes,
            common=shared.common[position] & ok.to_numpy(bool),
            scored=shared.scored[position] & ~is_unscored.to_numpy(bool),
            flat=mine["flat"].eq(True).to_numpy(bool),
            values={name: numbers(mine[name]) for name in (*NORMALIZED, *UNNORMALIZED, "effect")},
        )
