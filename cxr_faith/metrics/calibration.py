"""Calibration of yes/no answers with a known reference: is the model as sure as it should be?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

BINS = 15
SELECTED = (0.5, 0.8, 1.0)


def expected_calibration_error(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike) -> float:
    """Expected calibration error of p(yes), 15 equal bins, l1 (Naeini et al. 2015); NaN without a sample.

    Args:
        p_yes: [samples].
        is_yes: whether the reference answer is yes, [samples].
    """
    # Imported where it is used: torchmetrics takes seconds to import and brings matplotlib with it.
    from torchmetrics.functional.classification import binary_calibration_error

    # torchmetrics puts exactly 1 into an extra bin; it belongs into the last one.
    p = torch.tensor(np.asarray(p_yes, float)).clamp(max=1 - 2**-52)
    truth = torch.tensor(np.asarray(is_yes, bool)).int()
    return float(binary_calibration_error(p, truth, n_bins=BINS, norm="l1")) if len(p) else float("nan")


def area_under_roc(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike) -> float:
    """Area under the ROC curve of p(yes); NaN if all references are the same answer.

    Args:
        p_yes: [samples].
        is_yes: whether the reference answer is yes, [samples].
    """
    from torchmetrics.functional.classification import binary_auroc

    p, truth = torch.tensor(np.asarray(p_yes, float)), torch.tensor(np.asarray(is_yes, bool)).int()
    return float(binary_auroc(p, truth)) if len(truth.unique()) == 2 else float("nan")


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of the reliability diagram that holds a sample."""

    low: float
    """Lower edge of the bin."""
    high: float
    """Upper edge of the bin."""
    n: int
    """Samples in the bin."""
    p_yes: float
    """Their mean p(yes)."""
    yes: float
    """Share of them whose reference answer is yes."""


def reliability(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike) -> list[ReliabilityBin]:
    """The bins of a reliability diagram that hold a sample, lowest first.

    Args:
        p_yes: the model's p(yes), [samples].
        is_yes: whether the reference answer is yes, [samples].
    """
    p, truth = np.asarray(p_yes, float), np.asarray(is_yes, bool)
    edges = np.linspace(0, 1, BINS + 1)
    number = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, BINS - 1)
    return [
        ReliabilityBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            n=int((number == b).sum()),
            p_yes=float(p[number == b].mean()),
            yes=float(truth[number == b].mean()),
        )
        for b in np.unique(number)
    ]


def selective_accuracy(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> dict[str, float]:
    """Accuracy over the surest share of the samples; samples as sure as the last one count by the fraction needed.

    Args:
        confidence: [samples].
        correct: [samples].

    Returns:
        `"0.5"`, `"0.8"`, `"1"` → accuracy; empty without a sample.
    """
    sure, right = np.asarray(confidence, float), np.asarray(correct, float)
    result = {}
    for share in SELECTED if len(sure) else ():
        k = max(1.0, share * len(sure))
        cut = np.sort(sure)[::-1][int(np.ceil(k)) - 1]
        above, tied = sure > cut, sure == cut
        rest = right[tied].mean() * (k - above.sum())
        result[f"{share:g}"] = float((right[above].sum() + rest) / k)
    return result
