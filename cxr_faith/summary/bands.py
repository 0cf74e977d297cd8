"""Confidence bands of mean curves: a bootstrap over patients, point by point."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxr_faith.metrics.functional import normalize_curve
from cxr_faith.summary.mean_scores import never_scored

RESAMPLES, LEVEL, FEWEST_CLUSTERS, SEED = 2000, 0.95, 10, 0
COLUMNS = (
    *("patient_id", "image_id", "finding", "present", "status"),
    *("k", "deletion_scores", "insertion_scores", "s_original", "s_substrate"),
)
"""The columns of the records that bands are made from."""

Bands = dict[str, dict[str, list[float]]]


def add_bands(summary: Mapping[str, Any], records: pd.DataFrame) -> None:
    """Add `deletion_low`, `deletion_high`, `insertion_low`, `insertion_high` to the curves of a summary's boards.

    Bands cover the boards over all samples, by presence and by finding; the curves of the others stay without, and so
    do those of fewer than ten patients.

    Args:
        summary: as `write_summary` returns it; its boards are changed.
        records: the run's rows with `COLUMNS`.
    """
    lost = never_scored(records)
    records = records[~lost] if lost.any() else records  # a copy of all curves is what a large run has no room for
    for board in summary["boards"]:
        inside = _members(records, board)
        if inside is None or not inside.any():
            continue
        bands = curve_bands(records[inside])
        for row in board["rows"]:
            if "curves" in row and row["method"] in bands:
                row["curves"] |= bands[row["method"]]


def curve_bands(records: pd.DataFrame) -> Bands:
    """Method → lower and upper ends of the 95 % percentile intervals of its mean normalized curves.

    The mean is over the samples that are ok for every method that has a row for them. Whole patients are drawn, with
    replacement, 2,000 times from a fixed stream; a patient without a name is an image.

    Args:
        records: rows of one substrate, target and space, and of one slice.
    """
    common = records["status"].eq("ok").groupby(records["sample_id"]).transform("all")
    rows = records[common]
    bands: Bands = {}
    if rows.empty:
        return bands
    clusters, names = pd.factorize(rows["patient_id"].fillna(rows["image_id"]), sort=True)
    if len(names) < FEWEST_CLUSTERS:
        return bands
    sums = {}
    for method in sorted(set(rows["method"])):
        mine = rows["method"].eq(method).to_numpy(bool)
        if len(set(clusters[mine])) >= FEWEST_CLUSTERS:
            sums[method] = _cluster_sums(rows[mine], clusters[mine], len(names))
    if not sums:
        return bands
    totals = _draws(len(names)) @ np.hstack(list(sums.values()))  # of all methods: one pass over the draws
    widths = np.cumsum([columns.shape[1] for columns in sums.values()])
    for method, total in zip(sums, np.split(totals, widths[:-1], axis=1), strict=True):
        bands[method] = _ends(total)
    return bands


def _draws(n_clusters: int) -> npt.NDArray[np.float64]:
    """How often each cluster is drawn in each resample [resamples, clusters]."""
    rng = np.random.default_rng(SEED)
    drawn = (np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters) for _ in range(RESAMPLES))
    return np.stack(list(drawn)).astype(np.float64)


def _cluster_sums(rows: pd.DataFrame, clusters: npt.NDArray[np.intp], n_clusters: int) -> npt.NDArray[np.float64]:
    """Sums over each cluster's rows of 1 and of the two normalized curves [clusters, 1 + 2 * points]."""
    ends = [torch.from_numpy(rows[name].to_numpy(np.float64, copy=True)) for name in ("s_original", "s_substrate")]
    scores = (np.stack(rows[f"{side}_scores"].to_list()).astype(np.float64) for side in ("deletion", "insertion"))
    curves = [normalize_curve(torch.from_numpy(side), *ends).numpy() for side in scores]
    terms = np.hstack([np.ones((len(rows), 1)), *curves])
    sums = np.zeros((n_clusters, terms.shape[1]))
    np.add.at(sums, clusters, terms)
    return sums


def _ends(totals: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    """Percentile ends of the means, from totals [resamples, 1 + 2 * points] whose first column counts."""
    drawn = totals[:, 0] > 0
    means = totals[drawn, 1:] / totals[drawn, :1]
    tail = 100 * (1 - LEVEL) / 2
    ends = np.percentile(means, (tail, 100 - tail), axis=0).reshape(2, 2, -1).tolist()  # end, side, point
    return {
        f"{side}_{end}": ends[number][of]
        for of, side in enumerate(("deletion", "insertion"))
        for number, end in enumerate(("low", "high"))
    }


def _members(records: pd.DataFrame, board: Mapping[str, Any]) -> npt.NDArray[np.bool_] | None:
    """The rows of a board's setting and slice; None for a slice that has no bands."""
    setting = [records[name].eq(board[name]).to_numpy(bool) for name in ("substrate", "target", "space")]
    inside: npt.NDArray[np.bool_] = np.logical_and.reduce(setting)
    name: str = board["slice"]
    if name == "all":
        return inside
    if name in ("present", "absent"):
        flags = records["present"].eq(name == "present").to_numpy(bool, na_value=False)
        return np.asarray(inside & flags, bool)
    if name.startswith("finding:"):
        return np.asarray(inside & records["finding"].eq(name.removeprefix("finding:")).to_numpy(bool), bool)
    return None
