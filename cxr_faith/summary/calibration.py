"""Is the model as sure as it should be, and do surer answers have more faithful maps?"""

from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Calibration:
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
