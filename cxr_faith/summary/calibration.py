"""Is the model as sure as it should be, and do surer answers have more faithful maps?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.calibration import (
    ReliabilityBin,
    area_under_roc,
    expected_calibration_error,
    reliability,
    selective_accuracy,
)
from cxr_faith.metrics.functional import MEASURED
from cxr_faith.summary.columns import numbers, rank_correlation, rounded
from cxr_faith.summary.result import Result

COLUMNS = ("p_yes", "margin", "predicted", "correct", "status", "srg")
"""The columns of the records that this panel reads."""


@dataclass(frozen=True)
class Calibration(Result):
    """Calibration of p(yes) over the yes/no questions with a known answer."""

    n: int
    """Samples with p(yes) and a known answer."""
    ece: float | None
    """Expected calibration error, 15 equal bins (Naeini et al. 2015)."""
    auroc: float | None
    """Area under the ROC curve; None where the references are all yes or all no."""
    reliability: tuple[ReliabilityBin, ...]
    """The bins that hold a sample."""
    selective_accuracy: Mapping[str, float]
    """Share of the surest samples ("0.5", "0.8", "1") → their accuracy; empty without a sample."""
    confidence_with_srg: Mapping[str, float | None]
    """Method → Spearman's correlation over samples between the absolute margin and `srg`."""
    confidence_n: Mapping[str, int]
    """Method → samples in that correlation."""


def calibration_panel(first: pd.DataFrame, methods: Sequence[str]) -> Calibration:
    """Calibration and AUROC of p(yes), selective accuracy, and whether surer answers have more faithful maps.

    Args:
        first: rows of one setting, condition "none".
        methods: the order in which methods are listed; those without rows are left out.
    """
    samples = first.groupby("sample_id", sort=True)[["p_yes", "margin", "predicted", "correct"]].first()
    known = samples[samples["p_yes"].notna() & samples["correct"].notna()]
    p, correct = numbers(known["p_yes"]), numbers(known["correct"])
    is_yes = known["predicted"].eq("yes").to_numpy(bool) == (correct == 1)
    ok = first[first["status"].isin(MEASURED)]
    confidence, counts = {}, {}
    for method in (name for name in methods if first["method"].eq(name).any()):
        rows = ok[ok["method"].eq(method)]
        margin, srg = np.abs(numbers(rows["margin"])), numbers(rows["srg"])
        confidence[method] = rank_correlation(margin, srg)
        counts[method] = int((np.isfinite(margin) & np.isfinite(srg)).sum())
    return Calibration(
        n=len(known),
        ece=rounded(expected_calibration_error(p, is_yes)),
        auroc=rounded(area_under_roc(p, is_yes)),
        reliability=tuple(reliability(p, is_yes)),
        selective_accuracy=selective_accuracy(np.maximum(p, 1 - p), correct),
        confidence_with_srg=confidence,
        confidence_n=counts,
    )
