"""Is the model as sure as it should be, and do surer answers have more faithful maps?"""

from collections.abc import Iterable, Mapping, Sequence
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
from cxr_faith.summary.parts import by_method
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


def calibration_panel(parts: Iterable[pd.DataFrame], methods: Sequence[str]) -> Calibration:
    """Calibration and AUROC of p(yes), selective accuracy, and whether surer answers have more faithful maps.

    Args:
        parts: rows of one setting, condition "none", some methods after the others.
        methods: the order in which methods are listed; those without rows are left out.
    """
    samples, confidence, counts = list[pd.DataFrame](), dict[str, float | None](), dict[str, int]()
    for part in parts:
        samples.append(_answers(part))
        for method, rows in by_method([part], methods):
            ok = rows[rows["status"].isin(MEASURED)]
            margin, srg = np.abs(numbers(ok["margin"])), numbers(ok["srg"])
            confidence[method] = rank_correlation(margin, srg)
            counts[method] = int((np.isfinite(margin) & np.isfinite(srg)).sum())
    table = samples[0] if len(samples) == 1 else _answers(pd.concat(samples).reset_index())
    known = table[table["p_yes"].notna() & table["correct"].notna()]
    p, correct = numbers(known["p_yes"]), numbers(known["correct"])
    is_yes = known["predicted"].eq("yes").to_numpy(bool) == (correct == 1)
    return Calibration(
        n=len(known),
        ece=rounded(expected_calibration_error(p, is_yes)),
        auroc=rounded(area_under_roc(p, is_yes)),
        reliability=tuple(reliability(p, is_yes)),
        selective_accuracy=selective_accuracy(np.maximum(p, 1 - p), correct),
        confidence_with_srg=confidence,
        confidence_n=counts,
    )


def _answers(rows: pd.DataFrame) -> pd.DataFrame:
    """What all rows of a sample say about its answer, by `sample_id`."""
    return rows.groupby("sample_id", sort=True)[["p_yes", "predicted", "correct"]].first()
