"""One board: the methods' means over one slice of the samples, under one substrate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import STATUSES
from cxr_faith.records import GAPS
from cxr_faith.summary.mean_curves import MeanCurves, Setting

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

UNSCORED = ("off_format", "invalid")
"""Statuses whose unnormalized scores mean nothing either."""

NORMALIZED = (
    *("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50", "retained_50"),
    *GAPS,
    *("random_z", "flip_deletion", "flip_insertion", "clipped_share", "monotonicity_violations", "tie_share"),
)
"""Columns averaged over the common samples."""

UNNORMALIZED = ("deletion_auc_logit", "insertion_auc_logit", "srg_logit")
"""Columns averaged over the common samples, and as `*_scored` over the scored ones, whose effect may be anything."""

FEWEST_OK = 0.1
"""Share of a slice's scored samples that must be ok, or it is ranked in the unit of the scores."""

WITH_ERROR = (*GAPS, "srg", "srg_logit", "srg_logit_scored")


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
    """Whether the sample is ok for every method that has a row for it, [rows]."""
    scored: Flags
    """Whether every method that has a row for the sample could score it, [rows]."""
    values: dict[str, Floats]
    """Column → its values [rows], NaN where null."""


def never_scored(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Rows of the methods that failed on every sample: they must not take the samples of the others with them.

    Args:
        rows: records of one setting, or of several.
    """
    settings = [rows[name] for name in ("substrate", "target", "space", "method")]
    return rows["status"].isin(UNSCORED).groupby(settings).transform("all")


def method_rows(rows: pd.DataFrame, order: Sequence[str], samples: pd.DataFrame) -> Iterator[MethodRows]:
    """The rows of one substrate, target and space, method by method.

    Args:
        rows: records of that setting, sorted by key.
        order: names of the methods; those without rows are left out.
        samples: one row per sample of the run, indexed by `sample_id`, with a column `patient`.
    """
    ok, scored = rows["status"].eq("ok"), ~rows["status"].isin(UNSCORED)
    lost = never_scored(rows)
    common = (ok | lost).groupby(rows["sample_id"]).transform("all") & ok
    scored = (scored | lost).groupby(rows["sample_id"]).transform("all") & scored
    patients = pd.factorize(samples["patient"], sort=True)[0]
    for method in order:
        mine = rows[rows["method"].eq(method)]
        if mine.empty:
            continue
        position = samples.index.get_indexer(pd.Index(mine["sample_id"]))
        shared = common[mine.index].to_numpy(bool)
        yield MethodRows(
            method=method,
            own_substrate=bool(mine["own_substrate"].eq(True).any()),
            sample=position,
            patient=patients[position],
            status=mine["status"].to_numpy(str),
            common=shared,
            scored=scored[mine.index].to_numpy(bool),
            values={name: numbers(mine[name]) for name in (*NORMALIZED, *UNNORMALIZED, "effect")},
        )


def board(
    methods: Sequence[MethodRows], inside: Flags, name: str, setting: Setting, curves: MeanCurves
) -> dict[str, Any]:
    """One slice: a row per method that has records in it, and the column that ranks them."""
    picked = [(rows, inside[rows.sample]) for rows in methods]
    entries = [_entry(rows, mask, curves.mean(setting, rows.method, name)) for rows, mask in picked if mask.any()]
    common = {sample for rows, mask in picked for sample in rows.sample[mask & rows.common]}
    scored = {sample for rows, mask in picked for sample in rows.sample[mask & rows.scored]}
    return {
        "n_samples": int(inside.sum()),
        "n_common": len(common),
        "n_scored": len(scored),
        # Removing the picture mostly makes a "no" surer: no normalized score then, and no honest ranking by one. Nor is
        # there one by a handful of samples that are ok among many that are not.
        "headline": "srg_logit_scored" if name == "answered_no" or len(common) <= FEWEST_OK * len(scored) else "srg",
        "rows": entries,
    }


def _entry(rows: MethodRows, mask: Flags, curves: dict[str, Any] | None) -> dict[str, Any]:
    common, scored, status = mask & rows.common, mask & rows.scored, rows.status[mask]
    counts = {name: int((status == name).sum()) for name in STATUSES}
    entry: dict[str, Any] = {
        "method": rows.method,
        "own_substrate": rows.own_substrate,
        "n": int(mask.sum()),
        "n_ok": counts["ok"],
        "coverage": counts["ok"] / int(mask.sum()),
        "n_common": int(common.sum()),
        "n_scored": int(scored.sum()),
        "status": counts,
    }
    averaged = {name: (name, common) for name in (*NORMALIZED, *UNNORMALIZED)}
    averaged |= {f"{name}_scored": (name, scored) for name in UNNORMALIZED}
    for name, (column, chosen) in averaged.items():
        entry[name] = mean(rows.values[column][chosen])
        if name in WITH_ERROR:
            entry[f"{name}_se"] = _standard_error(rows.values[column][chosen], rows.patient[chosen])
    entry["substrate_flips"] = mean(np.isfinite(rows.values["flip_deletion"][common]).astype(np.float64))
    effect, srg = rows.values["effect"][common], rows.values["srg_logit"][common]
    entry["srg_ratio_of_sums"] = float(srg.sum() / effect.sum()) if common.any() else None
    if curves is not None:
        entry["curves"] = curves
    return entry


def numbers(column: "pd.Series[Any]") -> Floats:
    """A column as float64, null and None as NaN, false and true as 0 and 1."""
    return column.astype(object).where(column.notna(), np.nan).to_numpy(np.float64)


def mean(values: Floats) -> float | None:
    """Mean of the values that are not NaN; None if there is none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _standard_error(values: Floats, patients: npt.NDArray[np.intp]) -> float | None:
    """Standard error of the mean of the patients' means; None for fewer than two patients."""
    known = np.isfinite(values)
    clusters = np.unique(patients[known], return_inverse=True)[1]
    if not known.any() or clusters.max() == 0:
        return None
    means = np.bincount(clusters, weights=values[known]) / np.bincount(clusters)
    return float(means.std(ddof=1) / np.sqrt(len(means)))
