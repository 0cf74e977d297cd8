"""Confidence bands of mean curves: a bootstrap over patients, point by point."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import Shown, scan_records
from cxr_faith.records.controls import SETTING
from cxr_faith.records.view import RecordView
from cxr_faith.summary import samples
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.columns import Flags, Floats
from cxr_faith.summary.curves import Bands
from cxr_faith.summary.method_rows import common_samples, never_scored
from cxr_faith.summary.rows import ViewRows
from cxr_faith.summary.summary import Summary

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0

FEWEST_CLUSTERS = 10
"""Below this number of patients there are no bands."""

COLUMNS = (
    "patient_id",
    "image_id",
    "finding",
    "present",
    "status",
    "k",
    "deletion_scores",
    "insertion_scores",
    "s_original",
    "s_substrate",
)
"""The columns of the records that bands are made from."""


def with_bands(summary: Summary, records: pd.DataFrame) -> Summary:
    """The summary with `bands` in the curves of its boards over all samples, by presence and by finding.

    The curves of other slices, and those of fewer than ten patients, stay without bands.

    Args:
        summary: a run's summary.
        records: the run's rows with `COLUMNS`, condition "none".
    """
    lost = never_scored(records)
    records = records[~lost] if lost.any() else records  # no copy without need: curves are most of the memory
    return replace(summary, boards=tuple(_board_with_bands(board, records) for board in summary.boards))


def with_bands_of(run_dir: str | Path, summary: Summary, shown: Shown) -> Summary:
    """`with_bands` of a run's records, which are read in pieces: only sums over each patient's rows are in memory.

    Args:
        run_dir: the run directory.
        summary: the run's summary.
        shown: the rows of the summary's boards.
    """
    rows = ViewRows(RecordView(run_dir, ("status", *samples.COLUMNS), shown))
    table, boards = rows.samples(), list(summary.boards)
    for setting in summary.settings:
        status = rows.frame(("status",), setting)
        lost = set(status.loc[never_scored(status), "method"])
        slices, common = samples.slices_of(table), common_samples(status, table)
        sums = {
            place: PatientSums(table, slices[board.slice] & common)
            for place, board in enumerate(boards)
            if board.setting == setting and _is_banded(board.slice) and board.slice in slices
        }
        for piece in scan_records(run_dir, COLUMNS, shown=shown):
            mine = piece[piece["condition"].eq(NONE) & ~piece["method"].isin(lost)]
            mine = mine[(mine[list(Setting._fields)] == list(setting)).all(axis=1)]
            for part in sums.values():
                part.add(mine)
        for place, part in sums.items():
            boards[place] = _banded(boards[place], part.bands())
    return replace(summary, boards=tuple(boards))


class PatientSums:
    """Sums of the effect and of both curves over each patient's rows, by method, for one slice of one setting.

    Args:
        table: one row per sample of the run, with a column `patient`.
        inside: which samples are in the slice and ok for every method [samples].
    """

    def __init__(self, table: pd.DataFrame, inside: Flags) -> None:
        self._samples = table.index[inside]
        self._patients, names = pd.factorize(table["patient"][inside], sort=True)
        self._n_patients, self._sums = len(names), dict[str, Floats]()

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows of the setting, without those of methods that failed everywhere."""
        if self._n_patients < FEWEST_CLUSTERS:
            return
        place = self._samples.get_indexer(pd.Index(rows["sample_id"]))
        for method, mine in rows[place >= 0].groupby("method", sort=True):
            patients = self._patients[self._samples.get_indexer(pd.Index(mine["sample_id"]))]
            terms = _terms(mine)
            sums = self._sums.setdefault(str(method), np.zeros((self._n_patients, terms.shape[1])))
            np.add.at(sums, patients, terms)

    def bands(self) -> dict[str, Bands]:
        """What `curve_bands` gives."""
        known = {name: sums for name, sums in self._sums.items() if (sums[:, 0] > 0).sum() >= FEWEST_CLUSTERS}
        return _bands({name: known[name] for name in sorted(known)}, self._n_patients)


def _board_with_bands(board: Board, records: pd.DataFrame) -> Board:
    inside = _members(records, board)
    return board if inside is None or not inside.any() else _banded(board, curve_bands(records[inside]))


def _banded(board: Board, bands: Mapping[str, Bands]) -> Board:
    rows = (
        replace(row, curves=replace(row.curves, bands=bands[row.method]))
        if row.curves is not None and row.method in bands
        else row
        for row in board.rows
    )
    return replace(board, rows=tuple(rows))


def curve_bands(records: pd.DataFrame) -> dict[str, Bands]:
    """Method → 95 % percentile intervals of its mean normalized curves; methods of few patients are left out.

    The mean is weighted by the effect, over the samples that are ok for every method that has a row for them. Whole
    patients are drawn, with replacement, 2,000 times from a fixed stream; a sample without a patient takes its image as
    one.

    Args:
        records: rows of one setting and slice.
    """
    common = records["status"].isin(MEASURED).groupby(records["sample_id"]).transform("all")
    rows = records[common]
    if rows.empty:
        return {}
    clusters, names = pd.factorize(rows["patient_id"].fillna(rows["image_id"]), sort=True)
    if len(names) < FEWEST_CLUSTERS:
        return {}
    sums = {}
    for method in sorted(set(rows["method"])):
        mine = rows["method"].eq(method).to_numpy(bool)
        if len(set(clusters[mine])) >= FEWEST_CLUSTERS:
            sums[method] = _cluster_sums(rows[mine], clusters[mine], len(names))
    return _bands(sums, len(names))


def _bands(sums: Mapping[str, Floats], n_clusters: int) -> dict[str, Bands]:
    """Bands from the sums of each method's clusters [clusters, 1 + 2·points]."""
    if not sums:
        return {}
    totals = _draws(n_clusters) @ np.hstack(list(sums.values()))  # all methods at once: one pass over the draws
    widths = np.cumsum([columns.shape[1] for columns in sums.values()])
    return {method: _ends(total) for method, total in zip(sums, np.split(totals, widths[:-1], axis=1), strict=True)}


def _draws(n_clusters: int) -> npt.NDArray[np.float64]:
    """How often each cluster is drawn in each resample [resamples, clusters]."""
    rng = np.random.default_rng(SEED)
    drawn = (np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters) for _ in range(RESAMPLES))
    return np.stack(list(drawn)).astype(np.float64)


def _cluster_sums(rows: pd.DataFrame, clusters: npt.NDArray[np.intp], n_clusters: int) -> npt.NDArray[np.float64]:
    """Sums of `_terms` over each cluster's rows [clusters, 1 + 2·points]."""
    terms = _terms(rows)
    sums = np.zeros((n_clusters, terms.shape[1]))
    np.add.at(sums, clusters, terms)
    return sums


def _terms(rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The effect and both curves above the substrate [rows, 1 + 2·points]."""
    original, removed = (rows[name].to_numpy(np.float64)[:, None] for name in ("s_original", "s_substrate"))
    scores = (np.stack(rows[f"{side}_scores"].to_list()).astype(np.float64) for side in ("deletion", "insertion"))
    return np.hstack([original - removed, *(side - removed for side in scores)])


def _ends(totals: npt.NDArray[np.float64]) -> Bands:
    """Percentile ends of the means, from totals [resamples, 1 + 2 * points] whose first column is the effect."""
    drawn = totals[:, 0] > 0
    means = totals[drawn, 1:] / totals[drawn, :1]
    tail = 100 * (1 - LEVEL) / 2
    ends = np.percentile(means, (tail, 100 - tail), axis=0).reshape(2, 2, -1)  # end, curve, point
    (deletion_low, insertion_low), (deletion_high, insertion_high) = (map(tuple, end) for end in ends.tolist())
    return Bands(deletion_low, deletion_high, insertion_low, insertion_high)


def _is_banded(slice: str) -> bool:
    """Whether the curves of a slice have bands."""
    return slice in ("all", "present", "absent") or slice.startswith("finding:")


def _members(records: pd.DataFrame, board: Board) -> npt.NDArray[np.bool_] | None:
    """The rows of a board's setting and slice; None for a slice that has no bands."""
    if not _is_banded(board.slice):
        return None
    inside: npt.NDArray[np.bool_] = records[list(SETTING)].eq(list(board.setting)).all(axis=1).to_numpy(bool)
    if board.slice == "all":
        return inside
    if board.slice in ("present", "absent"):
        flags = records["present"].eq(board.slice == "present").to_numpy(bool, na_value=False)
        return np.asarray(inside & flags, bool)
    flags = records["finding"].eq(board.slice.removeprefix("finding:")).to_numpy(bool)
    return np.asarray(inside & flags, bool)
