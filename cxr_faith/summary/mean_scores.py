"""One board from the methods' rows: means over one slice of the samples, with intervals and tests."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cxr_faith.metrics.bootstrap import jackknife_error
from cxr_faith.metrics.functional import MEASURED, STATUSES
from cxr_faith.metrics.statistics import FEWEST_CLUSTERS, cluster_sums
from cxr_faith.records import GAPS
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.columns import Flags, Floats, mean, median, weighted_mean
from cxr_faith.summary.curves import Curves
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.mean_curves import MeanCurves
from cxr_faith.summary.method_rows import NORMALIZED, UNNORMALIZED, WEIGHTED, MethodRows
from cxr_faith.summary.samples import ANSWERED_NO
from cxr_faith.summary.significance import differences, intervals
from cxr_faith.summary.subgroups import SUBGROUP

FEWEST_OK = 0.1
"""Share of a slice's scored samples that must be ok; below, the board is ranked in the unit of the scores."""

FEWEST_OK_OF_FEW = 0.5
"""The same share where the samples that are ok have too few patients for an interval."""

WITH_ERROR = (*GAPS, "srg", "srg_logit", "srg_logit_scored")
"""Columns of a row that have a standard error."""


def make_board(methods: Sequence[MethodRows], inside: Flags, name: str, setting: Setting, curves: MeanCurves) -> Board:
    """One slice: a row for each method that has records in it, and the column that ranks them.

    Args:
        methods: the rows of each method in the setting.
        inside: which samples of the run are in the slice, [samples].
        name: name of the slice.
        setting: substrate, target and space.
        curves: the mean curves of all slices.
    """
    picked = [(rows, inside[rows.sample]) for rows in methods]
    picked = [(rows, mask) for rows, mask in picked if mask.any()]
    common, scored, patient = (np.zeros(len(inside), kind) for kind in (bool, bool, np.intp))
    for rows, mask in picked:
        patient[rows.sample] = rows.patient
        common[rows.sample[mask & rows.common]] = True
        scored[rows.sample[mask & rows.scored]] = True
    n_common, n_scored = int(common.sum()), int(scored.sum())
    # Removing the image mostly raises the score of a "no", so those samples have no normalized score to rank by. Nor
    # may a handful of samples that are ok rank a slice of many that are not.
    fewest = FEWEST_OK if len(np.unique(patient[common])) >= FEWEST_CLUSTERS else FEWEST_OK_OF_FEW
    few = name == ANSWERED_NO or n_common <= fewest * n_scored
    headline = "srg_logit_scored" if few else "srg"
    made = [
        _row(rows, mask, tests, headline, curves.mean(setting, rows.method, name))
        for (rows, mask), tests in zip(picked, intervals(picked, len(inside)), strict=True)
    ]
    return Board(
        *setting,
        slice=name,
        n_samples=int(inside.sum()),
        n_common=n_common,
        n_scored=n_scored,
        headline=headline,
        rows=tuple(made),
        differences=differences(picked, headline, len(inside)) if has_differences(name) else (),
    )


def has_differences(name: str) -> bool:
    """Whether the board of a slice compares its methods; there are too many slices of findings and subgroups."""
    return not name.startswith(("finding:", *SUBGROUP))


def _row(rows: MethodRows, mask: Flags, tests: dict[str, Interval], headline: str, curves: Curves | None) -> BoardRow:
    common, scored, status = mask & rows.common, mask & rows.scored, rows.status[mask]
    counts = {name: int((status == number).sum()) for number, name in enumerate(STATUSES)}
    averaged = {name: (name, common) for name in (*NORMALIZED, *UNNORMALIZED)}
    averaged |= {f"{name}_scored": (name, scored) for name in UNNORMALIZED}
    means: dict[str, float | None] = {}
    for name, (column, chosen) in averaged.items():
        values, weights = rows.values[column][chosen], rows.values["effect"][chosen]
        means[name] = weighted_mean(values, weights) if name in WEIGHTED else mean(values)
        if name in WITH_ERROR:
            patients = rows.patient[chosen]
            weighs = name in WEIGHTED
            means[f"{name}_se"] = (
                _ratio_error(values, weights, patients) if weighs else _standard_error(values, patients)
            )
    effect, srg = rows.values["effect"][common], rows.values["srg_logit"][common]
    means["srg_ratio_of_sums"] = float(srg.sum() / effect.sum()) if common.any() else None
    means["substrate_flips"] = mean(np.isfinite(rows.values["flip_deletion"][common]).astype(np.float64))
    counted = scored if headline == "srg_logit_scored" else common
    measured = sum(counts[name] for name in MEASURED)
    return BoardRow(
        method=rows.method,
        own_substrate=rows.own_substrate,
        n=int(mask.sum()),
        n_ok=counts["ok"],
        coverage=measured / int(mask.sum()),
        flat_share=mean(rows.flat[counted].astype(np.float64)),
        n_common=int(common.sum()),
        n_scored=int(scored.sum()),
        n_clusters=tests[headline].clusters,
        status=counts,
        intervals=tests,
        curves=curves,
        sanity_failed=None,
        caveat=None,
        plain_means={name: mean(rows.values[name][common]) for name in WEIGHTED},
        medians={name: median(rows.values[name][common]) for name in WEIGHTED},
        **means,
    )


def _ratio_error(values: Floats, weights: Floats, patients: npt.NDArray[np.intp]) -> float | None:
    """Jackknife error, over patients, of the weighted mean; None for fewer than two patients."""
    known = np.isfinite(values)
    sums, totals = cluster_sums(values[known][:, None], patients[known], weights[known][:, None])
    there = totals[:, 0] > 0
    return float(jackknife_error(sums[there], totals[there])[0]) if there.sum() > 1 else None


def _standard_error(values: Floats, patients: npt.NDArray[np.intp]) -> float | None:
    """Standard error of the mean of the patients' means; None for fewer than two patients."""
    known = np.isfinite(values)
    sums, counts = cluster_sums(values[known][:, None], patients[known])
    there = counts[:, 0] > 0
    if there.sum() < 2:
        return None
    means = sums[there, 0] / counts[there, 0]
    return float(means.std(ddof=1) / np.sqrt(len(means)))
