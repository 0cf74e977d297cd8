"""The records of one method in one setting as arrays, and which samples count for a comparison of all methods."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.records import GAPS
from cxr_faith.records.controls import SETTING
from cxr_faith.summary.columns import Flags, Floats, numbers

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
    status: npt.NDArray[np.str_]
    """Status of each row, [rows]."""
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


def common_samples(rows: pd.DataFrame, samples: pd.DataFrame) -> Flags:
    """Which samples are ok (or flat) for every method that has a row for them and could score any sample, [samples].

    Args:
        rows: records of one setting.
        samples: one row per sample of the run, indexed by `sample_id`.
    """
    kept = ~never_scored(rows)
    ok = rows["status"][kept].isin(MEASURED).groupby(rows["sample_id"][kept]).all()
    return ok.reindex(samples.index, fill_value=False).to_numpy(bool)


def method_rows(rows: pd.DataFrame, order: Sequence[str], samples: pd.DataFrame) -> Iterator[MethodRows]:
    """The rows of one setting, method by method.

    Args:
        rows: records of that setting, sorted by key.
        order: names of the methods; those without rows are left out.
        samples: one row per sample of the run, indexed by `sample_id`, with a column `patient`.
    """
    ok, scored = rows["status"].isin(MEASURED), ~rows["status"].isin(UNSCORED)
    lost = never_scored(rows)
    common = (ok | lost).groupby(rows["sample_id"]).transform("all") & ok
    scored = (scored | lost).groupby(rows["sample_id"]).transform("all") & scored
    patients = pd.factorize(samples["patient"], sort=True)[0]
    for method in order:
        mine = rows[rows["method"].eq(method)]
        if mine.empty:
            continue
        position = samples.index.get_indexer(pd.Index(mine["sample_id"]))
        yield MethodRows(
            method=method,
            own_substrate=bool(mine["own_substrate"].eq(True).any()),
            sample=position,
            patient=patients[position],
            status=mine["status"].to_numpy(str),
            common=common[mine.index].to_numpy(bool),
            scored=scored[mine.index].to_numpy(bool),
            flat=mine["flat"].eq(True).to_numpy(bool),
            values={name: numbers(mine[name]) for name in (*NORMALIZED, *UNNORMALIZED, "effect")},
        )
